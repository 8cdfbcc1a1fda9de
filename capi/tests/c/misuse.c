/* One mistake, named by the first argument, with a block of the size of the second. */
#define _GNU_SOURCE
#include "check.h"
#include <malloc.h>
#include <pthread.h>
#include <string.h>

static void *other(void *block) {
    free(block);
    return NULL;
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    const char *mistake = arguments[1];
    size_t size = strtoul(arguments[2], NULL, 10);
    char *block = malloc(size), *second = malloc(size);
    char local[64];
    char *wrong = local;
    OPAQUE(block);
    OPAQUE(wrong);
    if (!strcmp(mistake, "none")) {
        memset(block, 1, malloc_usable_size(block));
        block = realloc(block, size + 1);
        free(block);
    } else if (!strcmp(mistake, "double-free")) {
        free(block);
        OPAQUE(block);
        free(block);
    } else if (!strcmp(mistake, "remote-double-free")) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, other, block) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        OPAQUE(block);
        free(block);
    } else if (!strcmp(mistake, "stack")) {
        free(wrong + 16);
    } else if (!strcmp(mistake, "interior")) {
        wrong = block + 8;
        OPAQUE(wrong);
        free(wrong);
    } else if (!strcmp(mistake, "realloc-freed")) {
        free(block);
        OPAQUE(block);
        block = realloc(block, size * 2);
    } else if (!strcmp(mistake, "realloc-stack")) {
        block = realloc(wrong + 16, size);
    } else if (!strcmp(mistake, "usable-stack")) {
        size_t room = malloc_usable_size(wrong + 16);
        OPAQUE(room);
    } else if (!strcmp(mistake, "usable-interior")) {
        wrong = block + 8;
        OPAQUE(wrong);
        size_t room = malloc_usable_size(wrong);
        OPAQUE(room);
    } else if (!strcmp(mistake, "usable-freed")) {
        free(block);
        OPAQUE(block);
        size_t room = malloc_usable_size(block);
        OPAQUE(room);
        block = NULL;
    } else if (!strcmp(mistake, "overflow")) {
        size_t room = malloc_usable_size(block);
        OPAQUE(room);
        block[room] ^= 1;
        free(block);
    } else if (!strcmp(mistake, "use-after-free")) {
        free(block);
        OPAQUE(block);
        memset(block, 0xcc, 16);
    } else {
        CHECK(!"a mistake");
    }
    /* Until what was freed is flushed, or handed out again. */
    static void *more[20000];
    size_t many = size > 100000 ? 100 : 20000;
    for (int round = 0; round < 2; round++) {
        for (size_t i = 0; i < many; i++) CHECK((more[i] = malloc(size)));
        for (size_t i = 0; i < many; i++) free(more[i]);
    }
    free(second);
    /* What a thread has left to the next is flushed, too. */
    malloc_trim(0);
    puts("survived");
    return 0;
}
