/* Makes a mistake with every block, the first argument says which, until one was sampled. */
#include "check.h"
#include <string.h>

int main(int count, char **arguments) {
    CHECK(count == 2);
    for (int i = 0; i < 100000; i++) {
        char *block = malloc(43);
        CHECK(block);
        OPAQUE(block);
        if (!strcmp(arguments[1], "use-after-free")) {
            free(block);
            OPAQUE(block);
            *(volatile char *)block;
        } else {
            /* The block ends where its page does, but for the bytes that its alignment takes. */
            (void)*(volatile char *)(block + 48);
            free(block);
        }
    }
    puts("survived");
    return 0;
}
