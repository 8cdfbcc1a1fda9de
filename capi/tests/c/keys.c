/* Threads whose first allocation is the table of keys' values that the C library makes: the allocator's own key may stand
 * in that table, and what it is set to inside of that allocation is lost. Without this, such threads could leak their
 * caches. The arguments: when the keys are created, and what the threads do. */
#include "check.h"
#include "flagstone.h"
#include <pthread.h>
#include <string.h>

enum { KEYS = 40, FEW = 20, MANY = 1500 };

static pthread_key_t last_key;

static void create_keys(void) {
    for (int i = 0; i < KEYS; i++)
        CHECK(pthread_key_create(&last_key, NULL) == 0);
}

/* Before the library's own beginning, or after it. */
static void before_all(int count, char **arguments, char **environment) {
    (void)environment;
    if (count > 1 && !strcmp(arguments[1], "before"))
        create_keys();
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) = before_all;

static void use(size_t size) {
    void *blocks[20];
    for (int i = 0; i < 20; i++) {
        blocks[i] = malloc(size);
        OPAQUE(blocks[i]);
    }
    for (int i = 0; i < 20; i++)
        free(blocks[i]);
}

static void *life(void *what) {
    int goes_on = !strcmp(what, "goes-on");
    void *block = goes_on ? malloc(100) : NULL;
    OPAQUE(block);
    CHECK(pthread_setspecific(last_key, &last_key) == 0);
    if (goes_on)
        for (size_t size = 40; size < 30000; size *= 2)
            use(size);
    free(block);
    return NULL;
}

static void run(int threads, char *what) {
    for (int i = 0; i < threads; i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, life, what) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    if (!strcmp(arguments[1], "after"))
        create_keys();
    struct flagstone_stats before, after;
    run(1, arguments[2]);
    flagstone_get_stats(&before);
    run(6, arguments[2]);
    flagstone_get_stats(&after);
    /* Each thread takes over what the one before has left. */
    CHECK(after.cached < 2 * before.cached + 20000);
    run(FEW, arguments[2]);
    flagstone_get_stats(&before);
    run(MANY, arguments[2]);
    flagstone_get_stats(&after);
    CHECK(flagstone_verify() == 0);
    printf("live %zu %zu, cached %zu %zu, metadata %zu %zu\n", before.live, after.live, before.cached, after.cached,
           before.metadata, after.metadata);
    fflush(stdout);
    /* Not a byte for each thread, but for what is recycled. */
    CHECK(after.live < before.live + MANY);
    CHECK(after.cached + after.metadata < before.cached + before.metadata + 20 * MANY);
    puts("ok");
    return 0;
}
