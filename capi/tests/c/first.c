/* The program's first block is allocated before the C library begins, which knows no environment yet; then a block is
 * freed twice. Without this, safeguards that the environment asks for could be lost in silence. */
#include "check.h"
#include <stdlib.h>

static void before_all(int count, char **arguments, char **environment) {
    (void)count, (void)arguments, (void)environment;
    void *block = malloc(77);
    OPAQUE(block);
    free(block);
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) = before_all;

int main(void) {
    void *block = malloc(2000), *again = block;
    OPAQUE(block);
    OPAQUE(again);
    free(block);
    free(again);
    puts("survived");
    return 0;
}
