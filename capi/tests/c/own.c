/* A program that counts its allocations the usual way: functions of its own in front of glibc's inner names. Without
 * this, those could call the program's again, for ever. */
#include "check.h"
#include <stdlib.h>
#include <string.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

static long calls;

void *malloc(size_t size) { calls++; return __libc_malloc(size); }
void *calloc(size_t count, size_t size) { calls++; return __libc_calloc(count, size); }
void *realloc(void *block, size_t size) { calls++; return __libc_realloc(block, size); }
void *memalign(size_t align, size_t size) { calls++; return __libc_memalign(align, size); }
void free(void *block) { __libc_free(block); }

int main(void) {
    long before = calls;
    char *block = malloc(10);
    strcpy(block, "short");
    block = realloc(block, 1000);
    CHECK(strcmp(block, "short") == 0);
    block = realloc(block, 1 << 20);
    CHECK(strcmp(block, "short") == 0);
    free(block);
    block = realloc(NULL, 10);
    free(block);
    block = calloc(10, 10);
    CHECK(block[99] == 0);
    free(block);
    block = memalign(64, 10);
    CHECK((size_t)block % 64 == 0);
    free(block);
    /* A compiler may leave some out. */
    CHECK(calls > before && calls <= before + 6);
    puts("ok");
    return 0;
}
