/* What include/flagstone.h says of heaps; linked with the library, shared or static. */
#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <flagstone.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int is_zero(const unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (bytes[i]) return 0;
    return 1;
}

static int is_aligned(const void *block, size_t align) { return (uintptr_t)block % align == 0; }

static struct flagstone_heap_stats stats_of(const flagstone_heap_t *heap) {
    struct flagstone_heap_stats stats;
    memset(&stats, 0xff, sizeof stats);
    flagstone_heap_get_stats(heap, &stats);
    return stats;
}

static size_t live(void) {
    struct flagstone_stats stats;
    flagstone_get_stats(&stats);
    return stats.live;
}

static flagstone_heap_t *fresh(void) {
    flagstone_heap_t *heap = flagstone_heap_new();
    CHECK(heap);
    return heap;
}

/* From 0 bytes to far beyond what a heap cuts itself. */
static size_t after(size_t size) { return size < 600 ? size + 1 : size * 5 / 4; }
enum { LONGEST = 8 << 20 };

static void sizes(flagstone_heap_t *heap) {
    for (size_t size = 0; size < LONGEST; size = after(size)) {
        unsigned char *block = flagstone_heap_malloc(heap, size);
        unsigned char *other = flagstone_heap_malloc(heap, size);
        CHECK(block && other && block != other);
        CHECK(is_aligned(block, 16) && is_aligned(other, 16));
        size_t room = flagstone_heap_usable_size(heap, block);
        CHECK(room >= size);
        memset(block, 0xa5, room);
        memset(other, 0x5a, flagstone_heap_usable_size(heap, other));
        for (size_t i = 0; i < size; i++) CHECK(block[i] == 0xa5);
        errno = 77;
        flagstone_heap_free(heap, block);
        flagstone_heap_free(heap, other);
        CHECK(errno == 77);
        unsigned char *zero = flagstone_heap_calloc(heap, size, 1);
        CHECK(zero && is_aligned(zero, 16) && is_zero(zero, size));
        memset(zero, 1, size);
        flagstone_heap_free(heap, zero);
    }
    errno = 77;
    flagstone_heap_free(heap, NULL);
    CHECK(errno == 77 && flagstone_heap_usable_size(heap, NULL) == 0);
}

static void alignments(flagstone_heap_t *heap) {
    for (size_t align = 1; align <= (1u << 20); align *= 2)
        for (size_t size = 0; size < 200000; size = size * 3 + 1) {
            unsigned char *block = flagstone_heap_aligned_alloc(heap, align, size);
            CHECK(block && is_aligned(block, align) && is_aligned(block, 16));
            memset(block, 7, size);
            block = flagstone_heap_realloc(heap, block, size * 2 + 1);
            CHECK(block && is_aligned(block, 16));
            for (size_t i = 0; i < size; i++) CHECK(block[i] == 7);
            flagstone_heap_free(heap, block);
        }
    size_t none[] = {0, 3, 24, SIZE_MAX};
    for (unsigned i = 0; i < sizeof none / sizeof *none; i++) {
        errno = 0;
        CHECK(flagstone_heap_aligned_alloc(heap, none[i], 48) == NULL && errno == EINVAL);
    }
}

static void reallocs(flagstone_heap_t *heap) {
    size_t old = 1;
    unsigned char *block = flagstone_heap_realloc(heap, NULL, old);
    CHECK(block);
    block[0] = 0;
    for (size_t size = 2; size < LONGEST; size = size * 7 / 5 + 1) {
        block = flagstone_heap_realloc(heap, block, size);
        CHECK(block && is_aligned(block, 16) && flagstone_heap_usable_size(heap, block) >= size);
        for (size_t i = old; i < size; i++) block[i] = (unsigned char)(i * 31 >> 3);
        for (size_t i = 1; i < size; i += i < 4096 ? 1 : 4093)
            CHECK(block[i] == (unsigned char)(i * 31 >> 3));
        old = size;
    }
    for (size_t size = old; size > 1; size = size * 3 / 4) {
        block = flagstone_heap_realloc(heap, block, size);
        CHECK(block && flagstone_heap_usable_size(heap, block) >= size);
        for (size_t i = 1; i < size; i += i < 4096 ? 1 : 4093)
            CHECK(block[i] == (unsigned char)(i * 31 >> 3));
    }
    errno = 5;
    block = flagstone_heap_realloc(heap, block, 0);
    CHECK(block == NULL && errno == 5);
}

static void too_much(flagstone_heap_t *heap) {
    size_t much[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2 + 1, PTRDIFF_MAX, (size_t)1 << 48};
    for (unsigned i = 0; i < sizeof much / sizeof *much; i++) {
        size_t size = much[i];
        OPAQUE(size);
        errno = 0;
        CHECK(flagstone_heap_malloc(heap, size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(flagstone_heap_calloc(heap, 1, size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(flagstone_heap_calloc(heap, size / 2 + 1, 3) == NULL && errno == ENOMEM);
        for (int bits = 0; bits < 64; bits++) {
            errno = 0;
            size_t align = (size_t)1 << bits;
            CHECK(flagstone_heap_aligned_alloc(heap, align, size) == NULL && errno == ENOMEM);
        }
        size_t sizes[] = {100, 100000};
        for (int j = 0; j < 2; j++) {
            char *block = flagstone_heap_malloc(heap, sizes[j]);
            strcpy(block, "kept");
            errno = 0;
            CHECK(flagstone_heap_realloc(heap, block, size) == NULL && errno == ENOMEM);
            CHECK(!strcmp(block, "kept"));
            flagstone_heap_free(heap, block);
        }
    }
}

static void names(void) {
    errno = 0;
    CHECK(flagstone_heap_new_with("too little", 4095) == NULL && errno == EINVAL);
    errno = 0;
    CHECK(flagstone_heap_new_with("\xff", 0) == NULL && errno == EINVAL);
    char name[] = "request 17";
    flagstone_heap_t *named = flagstone_heap_new_with(name, 0);
    flagstone_heap_t *nameless = flagstone_heap_new_with(NULL, 4096);
    CHECK(named && nameless && !*flagstone_heap_name(nameless));
    name[0] = '?';
    CHECK(!strcmp(flagstone_heap_name(named), "request 17"));
    flagstone_heap_reset(named);
    CHECK(!strcmp(flagstone_heap_name(named), "request 17"));
    flagstone_heap_drop(named), flagstone_heap_drop(nameless);
    /* 46 bytes, and one character of two. */
    char longer[] = "0123456789012345678901234567890123456789012345\xc3\xa9, and more";
    named = flagstone_heap_new_with(longer, 0);
    longer[46] = 0;
    CHECK(!strcmp(flagstone_heap_name(named), longer));
    flagstone_heap_drop(named);
    flagstone_heap_drop(NULL);
}

/* Memory of some kind, where there is such. */
static void kinds(void) {
    unsigned flags[] = {FLAGSTONE_HEAP_HUGE_PAGES, FLAGSTONE_HEAP_SMALL_PAGES,
                        FLAGSTONE_HEAP_GIGANTIC_PAGES, FLAGSTONE_HEAP_NO_CORE_DUMPS,
                        FLAGSTONE_HEAP_MERGEABLE, FLAGSTONE_HEAP_ON_NODE};
    unsigned count = sizeof flags / sizeof *flags, all = 0;
    for (unsigned i = 0; i < count; i++) {
        errno = 0;
        flagstone_heap_t *heap = flagstone_heap_new_of("kind", 1 << 24, flags[i], 0);
        CHECK(heap || errno == ENOTSUP);
        all |= flags[i];
        if (!heap) continue;
        for (size_t size = 16; size < 4 << 20; size *= 4) {
            char *block = flagstone_heap_malloc(heap, size);
            CHECK(block);
            memset(block, 1, size);
            CHECK(flagstone_heap_realloc(heap, block, 2 * size));
        }
        CHECK(stats_of(heap).blocks == 9);
        flagstone_heap_reset(heap);
        CHECK(stats_of(heap).held == 4096);
        flagstone_heap_drop(heap);
    }
    errno = 0;
    CHECK(!flagstone_heap_new_of(NULL, 0, all, 0) && errno == EINVAL);
    errno = 0;
    CHECK(!flagstone_heap_new_of(NULL, 0, all + 1, 0) && errno == EINVAL);
    errno = 0;
    CHECK(!flagstone_heap_new_of(NULL, 0, FLAGSTONE_HEAP_ON_NODE, 100000) && errno == ENOTSUP);
}

/* What is free goes back when it is asked for. */
static void purges(void) {
    enum { COUNT = 1000, SIZE = 4096 };
    flagstone_heap_t *heap = flagstone_heap_new();
    void *blocks[COUNT];
    for (int i = 0; i < COUNT; i++) CHECK((blocks[i] = flagstone_heap_malloc(heap, SIZE)));
    for (int i = 0; i < COUNT; i++)
        if (i % 8) flagstone_heap_free(heap, blocks[i]);
    /* In a hardened process each block went by itself. */
    CHECK(flagstone_heap_purge(heap) > COUNT * SIZE / 4 || stats_of(heap).held < COUNT * SIZE / 4);
    CHECK(flagstone_heap_purge(heap) == 0);
    flagstone_heap_drop(heap);
}

/* How many blocks a heap has until it refuses one. */
static size_t fill(flagstone_heap_t *heap, size_t size, size_t most) {
    for (size_t count = 0; count < most; count++) {
        errno = 0;
        if (!flagstone_heap_malloc(heap, size)) {
            CHECK(errno == ENOMEM);
            return count;
        }
    }
    return most;
}

static void limits(void) {
    enum { LIMIT = 256 << 10, MANY = 100000 };
    flagstone_heap_t *heap = flagstone_heap_new_with("limited", LIMIT);
    size_t sizes[] = {24, 1000, 20000};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        size_t size = sizes[i], first = fill(heap, size, MANY);
        CHECK(first > 0 && first < LIMIT / size);
        struct flagstone_heap_stats full = stats_of(heap);
        CHECK(full.blocks == first && full.live >= first * size);
        CHECK(full.held >= full.live && full.held <= LIMIT && full.peak >= full.held && full.refused > 0);
        flagstone_heap_set_limit(heap, 2 * LIMIT);
        /* How many more is the table's matter in a hardened process, which must grow first. */
        CHECK(fill(heap, size, MANY) > 0);
        flagstone_heap_set_limit(heap, 0);
        CHECK(fill(heap, size, 1000) == 1000);
        flagstone_heap_set_limit(heap, LIMIT);
        CHECK(flagstone_heap_malloc(heap, 100000) == NULL);
        errno = 77;
        flagstone_heap_reset(heap);
        CHECK(errno == 77);
        /* As it was, with its limit. */
        struct flagstone_heap_stats empty = stats_of(heap);
        CHECK(empty.blocks == 0 && empty.live == 0 && empty.held == 4096 && empty.peak == 4096);
        CHECK(fill(heap, size, MANY) == first);
        flagstone_heap_reset(heap);
    }
    flagstone_heap_drop(heap);
}

/* What is left in a heap goes with it. */
static void drops(void) {
    size_t before = live();
    for (int i = 0; i < 200; i++) {
        flagstone_heap_t *heap = fresh();
        for (size_t size = 1; size < 1000000; size *= 3) CHECK(flagstone_heap_malloc(heap, size));
        CHECK(live() > before + 700000 && stats_of(heap).blocks == 13);
        errno = 77;
        flagstone_heap_drop(heap);
        CHECK(errno == 77 && live() == before);
    }
}

enum { THREADS = 4, BLOCKS = 2000 };
static flagstone_heap_t *common;
static char *shared[THREADS][BLOCKS];
static pthread_barrier_t filled;

static size_t size_of(long number, int place) { return (number * 7 + place * 13) % 3000; }

/* Fills its row, then frees the next thread's. */
static void *thread(void *argument) {
    long own = (long)argument, next = (own + 1) % THREADS;
    for (int i = 0; i < BLOCKS; i++) {
        size_t size = size_of(own, i);
        CHECK((shared[own][i] = flagstone_heap_calloc(common, 1, size + 1)));
        memset(shared[own][i], (int)own, size);
    }
    pthread_barrier_wait(&filled);
    for (int i = 0; i < BLOCKS; i++) {
        char *block = shared[next][i];
        size_t size = size_of(next, i);
        if (i % 3 == 0) CHECK((block = flagstone_heap_realloc(common, block, size * 2 + 1)));
        for (size_t j = 0; j < size; j++) CHECK(block[j] == next);
        flagstone_heap_free(common, block);
    }
    return NULL;
}

static void *drop(void *heap) {
    flagstone_heap_drop(heap);
    return NULL;
}

static void threads(void) {
    common = fresh();
    for (int round = 0; round < 5; round++) {
        pthread_t all[THREADS];
        CHECK(pthread_barrier_init(&filled, NULL, THREADS) == 0);
        for (long i = 0; i < THREADS; i++)
            CHECK(pthread_create(&all[i], NULL, thread, (void *)i) == 0);
        for (int i = 0; i < THREADS; i++) CHECK(pthread_join(all[i], NULL) == 0);
        CHECK(stats_of(common).blocks == 0 && stats_of(common).live == 0);
        if (round == 2) flagstone_heap_reset(common);
    }
    /* Made here, dropped there. */
    pthread_t other;
    CHECK(flagstone_heap_malloc(common, 100));
    CHECK(pthread_create(&other, NULL, drop, common) == 0 && pthread_join(other, NULL) == 0);
}

static void forks(void) {
    flagstone_heap_t *heap = fresh();
    char *block = flagstone_heap_malloc(heap, 100), *large = flagstone_heap_malloc(heap, 100000);
    strcpy(block, "ours");
    pid_t child = fork();
    if (child == 0) {
        CHECK(!strcmp(block, "ours"));
        flagstone_heap_free(heap, block);
        flagstone_heap_free(heap, large);
        CHECK(fill(heap, 200, 1000) == 1000 && stats_of(heap).blocks == 1000);
        flagstone_heap_drop(heap);
        CHECK(flagstone_verify() == 0);
        _exit(0);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && status == 0);
    CHECK(!strcmp(block, "ours") && stats_of(heap).blocks == 2);
    flagstone_heap_drop(heap);
}

/* Before main, and before anything of the library, where that is linked into the program. */
static flagstone_heap_t *early;
static char *early_block;
static void first(int count, char **arguments, char **environment) {
    (void)count, (void)arguments, (void)environment;
    early = flagstone_heap_new();
    early_block = flagstone_heap_malloc(early, 100);
    strcpy(early_block, "early");
}

__attribute__((section(".preinit_array"), used)) static void (*const at_first)(int, char **,
                                                                               char **) = first;

int main(void) {
    CHECK(early && !strcmp(early_block, "early"));
    flagstone_heap_free(early, early_block);
    CHECK(stats_of(early).blocks == 0);
    flagstone_heap_drop(early);
    flagstone_heap_t *heap = fresh();
    CHECK(stats_of(heap).held == 4096);
    sizes(heap);
    alignments(heap);
    reallocs(heap);
    too_much(heap);
    CHECK(stats_of(heap).blocks == 0 && stats_of(heap).live == 0);
    flagstone_heap_drop(heap);
    names();
    kinds();
    purges();
    limits();
    drops();
    threads();
    forks();
    CHECK(flagstone_verify() == 0);
    puts("ok");
    return 0;
}
