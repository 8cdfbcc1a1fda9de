/* What include/flagstone.h declares; linked with the library, shared or static. */
#include "check.h"
#include <errno.h>
#include <flagstone.h>
#include <string.h>
#include <unistd.h>

int main(void) {
    CHECK(strcmp(flagstone_version(), FLAGSTONE_VERSION) == 0);
    struct flagstone_stats before, after;
    flagstone_get_stats(&before);
    char *block = malloc(3000000);
    memset(block, 1, 3000000);
    flagstone_get_stats(&after);
    CHECK(after.live >= before.live + 3000000);
    CHECK(after.committed >= after.resident && after.resident >= 3000000);
    CHECK(after.metadata > 0);
    free(block);
    CHECK(flagstone_set_option("FLAGSTONE_PURGE_DELAY_MS", "10") == 0);
    CHECK(flagstone_set_option("FLAGSTONE_LARGE_CACHE", "0") == 0);
    CHECK(flagstone_set_option("FLAGSTONE_DIRTY_BUDGET", "many") == EINVAL);
    CHECK(flagstone_set_option("FLAGSTONE_COLOUR", "red") == EINVAL);
    CHECK(flagstone_set_option("FLAGSTONE_HARDENED", "1") == EBUSY);
    CHECK(flagstone_set_option("FLAGSTONE_SAMPLE", "100") == EBUSY);
    CHECK(flagstone_purge() > 0);
    CHECK(flagstone_start_background() == 0);
    CHECK(flagstone_start_background() == 0);
    CHECK(flagstone_set_option("FLAGSTONE_LARGE_CACHE", "8M") == 0);
    /* With a delay of 10 ms. Volatile, or the compiler leaves all of it out. */
    char *volatile seen = malloc(3000000);
    memset(seen, 1, 3000000);
    flagstone_get_stats(&before);
    CHECK(before.resident >= 3000000);
    free(seen);
    do {
        usleep(1000);
        flagstone_get_stats(&after);
    } while (after.resident + 2000000 > before.resident);
    CHECK(flagstone_verify() == 0);
    puts("ok");
    return 0;
}
