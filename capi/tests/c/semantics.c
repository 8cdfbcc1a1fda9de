/* What the C standard, POSIX and glibc's manual say of each function. */
#define _GNU_SOURCE
#include "check.h"
#include <errno.h>
#include <malloc.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* C23, which glibc does not have yet. */
extern void free_sized(void *, size_t) __attribute__((weak));
extern void free_aligned_sized(void *, size_t, size_t) __attribute__((weak));

static int is_zero(const unsigned char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (bytes[i]) return 0;
    return 1;
}

static int is_aligned(const void *block, size_t align) { return (uintptr_t)block % align == 0; }

static void sizes(void) {
    for (size_t size = 0; size < 5000; size += size < 600 ? 1 : 37) {
        unsigned char *block = malloc(size), *other = malloc(size);
        CHECK(block && other && block != other);
        CHECK(is_aligned(block, 16) && is_aligned(other, 16));
        CHECK(malloc_usable_size(block) >= size);
        memset(block, 0xa5, malloc_usable_size(block));
        memset(other, 0x5a, malloc_usable_size(other));
        for (size_t i = 0; i < size; i++) CHECK(block[i] == 0xa5);
        free(block);
        free(other);
        unsigned char *zero = calloc(size, 1);
        CHECK(zero && is_zero(zero, size));
        memset(zero, 1, size);
        free(zero);
    }
    for (size_t size = 10000; size < (64u << 20); size = size * 5 / 3) {
        unsigned char *block = calloc(1, size);
        CHECK(block && is_aligned(block, 16) && is_zero(block, size));
        CHECK(malloc_usable_size(block) >= size);
        block[0] = block[size - 1] = 1;
        free(block);
    }
}

static void alignments(void) {
    for (size_t align = 1; align <= (4u << 20); align *= 2)
        for (size_t size = 0; size < 200000; size = size * 3 + 1) {
            void *block = aligned_alloc(align, size);
            CHECK(block && is_aligned(block, align) && is_aligned(block, 16));
            CHECK(malloc_usable_size(block) >= size);
            memset(block, 1, size);
            free_aligned_sized(block, align, size);
            block = memalign(align, size);
            CHECK(block && is_aligned(block, align));
            free(block);
            void *out = &out;
            int result = posix_memalign(&out, align, size);
            if (align < sizeof(void *)) {
                CHECK(result == EINVAL && out == &out);
                continue;
            }
            CHECK(result == 0 && is_aligned(out, align));
            /* A block aligned by more than malloc's alignment grows like others. */
            memset(out, 7, size);
            unsigned char *grown = realloc(out, size * 2 + 1);
            CHECK(grown);
            for (size_t i = 0; i < size; i++) CHECK(grown[i] == 7);
            free(grown);
        }
    void *out = &out;
    CHECK(posix_memalign(&out, 24, 8) == EINVAL && out == &out);
    CHECK(posix_memalign(&out, 0, 8) == EINVAL);
    errno = 0;
    CHECK(posix_memalign(&out, 64, SIZE_MAX / 2) == ENOMEM && errno == 0);
    CHECK(aligned_alloc(24, 48) == NULL && errno == EINVAL);
    void *rounded = memalign(24, 48);
    CHECK(is_aligned(rounded, 32));
    free(rounded);
    size_t page = sysconf(_SC_PAGESIZE);
    void *whole = valloc(100), *wholes = pvalloc(page + 1), *least = pvalloc(0);
    CHECK(is_aligned(whole, page) && is_aligned(wholes, page) && is_aligned(least, page));
    CHECK(malloc_usable_size(wholes) >= 2 * page);
    free(whole), free(wholes), free(least);
    errno = 0;
    CHECK(pvalloc(SIZE_MAX - 5) == NULL && errno == ENOMEM);
}

/* No function has a block of so many bytes, whatever rounding up makes of them. */
static void impossible(size_t size) {
    CHECK(malloc(size) == NULL && calloc(1, size) == NULL && calloc(size, 1) == NULL);
    CHECK(calloc(size / 2 + 1, 2) == NULL && reallocarray(NULL, size / 2 + 1, 2) == NULL);
    CHECK(valloc(size) == NULL && pvalloc(size) == NULL);
    for (int bits = 4; bits < 64; bits++) {
        size_t align = (size_t)1 << bits;
        errno = 0;
        CHECK(aligned_alloc(align, size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(memalign(align, size) == NULL && errno == ENOMEM);
        void *out = &out;
        CHECK(posix_memalign(&out, align, size) == ENOMEM && out == &out);
    }
    char *small = malloc(100), *large = malloc(1 << 20);
    CHECK(realloc(small, size) == NULL && realloc(large, size) == NULL);
    CHECK(reallocarray(small, size / 2 + 1, 2) == NULL);
    free(small), free(large);
}

static void too_much(void) {
    size_t much[] = {SIZE_MAX, SIZE_MAX - 15, SIZE_MAX / 2 + 1, PTRDIFF_MAX, (size_t)1 << 48};
    for (unsigned i = 0; i < sizeof much / sizeof *much; i++) {
        size_t size = much[i];
        OPAQUE(size);
        errno = 0;
        CHECK(malloc(size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(calloc(1, size) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(aligned_alloc(64, size) == NULL && errno == ENOMEM);
        char *block = malloc(100);
        strcpy(block, "kept");
        errno = 0;
        CHECK(realloc(block, size) == NULL && errno == ENOMEM && !strcmp(block, "kept"));
        free(block);
    }
    size_t ends[] = {SIZE_MAX, (size_t)PTRDIFF_MAX + 4096};
    for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++)
        for (size_t below = 0; below <= 8192; below += below < 130 ? 1 : 62) {
            size_t size = ends[i] - below;
            OPAQUE(size);
            impossible(size);
        }
    /* Alignments that no size has room beside. */
    for (int bits = 48; bits < 64; bits++) {
        size_t align = (size_t)1 << bits;
        OPAQUE(align);
        errno = 0;
        CHECK(aligned_alloc(align, 1) == NULL && errno == ENOMEM);
        errno = 0;
        CHECK(memalign(align - 1, 1) == NULL && errno == ENOMEM);
        void *out = &out;
        CHECK(posix_memalign(&out, align, align) == ENOMEM && out == &out);
    }
    size_t last = SIZE_MAX;
    OPAQUE(last);
    CHECK(memalign(last, 1) == NULL);
    size_t half = SIZE_MAX / 2 + 1;
    OPAQUE(half);
    errno = 0;
    CHECK(calloc(half, 2) == NULL && errno == ENOMEM);
    errno = 0;
    CHECK(reallocarray(NULL, half, 2) == NULL && errno == ENOMEM);
}

static void reallocs(void) {
    /* Null allocates, 0 frees, as in glibc. */
    char *block = realloc(NULL, 10);
    CHECK(block);
    errno = 5;
    void *nothing = realloc(block, 0);
    CHECK(nothing == NULL && errno == 5);
    size_t old = 1;
    unsigned char *grown = malloc(old);
    grown[0] = 0;
    for (size_t size = 2; size < (40u << 20); size = size * 7 / 5 + 1) {
        grown = realloc(grown, size);
        CHECK(grown && is_aligned(grown, 16) && malloc_usable_size(grown) >= size);
        for (size_t i = old; i < size; i++) grown[i] = (unsigned char)(i * 31 >> 3);
        for (size_t i = 1; i < size; i += i < 4096 ? 1 : 4093)
            CHECK(grown[i] == (unsigned char)(i * 31 >> 3));
        old = size;
    }
    for (size_t size = old; size > 1; size = size * 3 / 4) {
        grown = realloc(grown, size);
        CHECK(grown && malloc_usable_size(grown) >= size);
        for (size_t i = 1; i < size; i += i < 4096 ? 1 : 4093)
            CHECK(grown[i] == (unsigned char)(i * 31 >> 3));
    }
    grown = reallocarray(grown, 30, 10);
    CHECK(malloc_usable_size(grown) >= 300);
    free(grown);
}

static void frees(void) {
    size_t sizes[] = {0, 1, 24, 1000, 5000, 40000, 300000, 2000000, 50000000};
    for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *block = malloc(sizes[i]);
        CHECK(block);
        errno = 77;
        free(block);
        CHECK(errno == 77);
        block = malloc(sizes[i]);
        free_sized(block, sizes[i]);
        CHECK(errno == 77);
    }
    free(NULL);
    free_sized(NULL, 0);
    free_aligned_sized(NULL, 16, 0);
    CHECK(malloc_usable_size(NULL) == 0);
}

static void statistics(void) {
    struct mallinfo2 before = mallinfo2();
    char *block = malloc(10 << 20);
    block[0] = 1;
    struct mallinfo2 after = mallinfo2();
    CHECK(after.uordblks >= before.uordblks + (10 << 20));
    CHECK(after.arena >= after.uordblks);
    free(block);
    CHECK(mallopt(M_MMAP_THRESHOLD, 1 << 20) == 1 && mallopt(12345, 0) == 1);
    char *text = NULL;
    size_t length = 0;
    FILE *memory = open_memstream(&text, &length);
    CHECK(memory && malloc_info(0, memory) == 0);
    fclose(memory);
    CHECK(strstr(text, "<malloc version=\"flagstone-") == text && strstr(text, "</malloc>\n"));
    free(text);
    errno = 0;
    CHECK(malloc_info(1, stdout) == -1 && errno == EINVAL);
    malloc_stats();
    CHECK(malloc_trim(0) == 1);
}

int main(void) {
    sizes();
    alignments();
    too_much();
    reallocs();
    frees();
    statistics();
    puts("ok");
    return 0;
}
