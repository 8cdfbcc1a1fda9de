/* One mistake with heaps, named by the first argument, with a block of the size of the second. */
#include "check.h"
#include <flagstone.h>
#include <pthread.h>
#include <string.h>

enum { MORE = 300 };
static flagstone_heap_t *heap;

static void *free_it(void *block) {
    flagstone_heap_free(heap, block);
    return NULL;
}

static void elsewhere(void *block) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, free_it, block) == 0 && pthread_join(thread, NULL) == 0);
}

int main(int count, char **arguments) {
    CHECK(count == 3);
    const char *mistake = arguments[1];
    size_t size = strtoul(arguments[2], NULL, 10);
    heap = flagstone_heap_new();
    flagstone_heap_t *other = flagstone_heap_new();
    char *block = flagstone_heap_malloc(heap, size), *outside = malloc(size);
    char *blocks[MORE], local[64], *wrong = local + 16;
    for (int i = 0; i < MORE; i++) CHECK((blocks[i] = flagstone_heap_malloc(heap, size)));
    OPAQUE(block);
    OPAQUE(wrong);
    if (!strcmp(mistake, "none")) {
        block = flagstone_heap_realloc(heap, block, size + 1);
        elsewhere(block);
    } else if (!strcmp(mistake, "double-free")) {
        flagstone_heap_free(heap, block);
        flagstone_heap_free(heap, block);
    } else if (!strcmp(mistake, "double-free-later")) {
        for (int i = 0; i < MORE; i += 2) flagstone_heap_free(heap, blocks[i]);
        flagstone_heap_free(heap, block);
        flagstone_heap_free(heap, blocks[100]);
    } else if (!strcmp(mistake, "here-and-elsewhere")) {
        flagstone_heap_free(heap, block);
        elsewhere(block);
    } else if (!strcmp(mistake, "elsewhere-and-here")) {
        elsewhere(block);
        flagstone_heap_free(heap, block);
    } else if (!strcmp(mistake, "other-heap")) {
        flagstone_heap_free(other, block);
    } else if (!strcmp(mistake, "realloc-other-heap")) {
        block = flagstone_heap_realloc(other, block, size * 2);
    } else if (!strcmp(mistake, "usable-other-heap")) {
        size_t room = flagstone_heap_usable_size(other, block);
        OPAQUE(room);
    } else if (!strcmp(mistake, "malloc-to-heap")) {
        flagstone_heap_free(heap, outside);
    } else if (!strcmp(mistake, "stack")) {
        flagstone_heap_free(heap, wrong);
    } else if (!strcmp(mistake, "interior")) {
        flagstone_heap_free(heap, block + 8);
    } else if (!strcmp(mistake, "realloc-freed")) {
        flagstone_heap_free(heap, block);
        block = flagstone_heap_realloc(heap, block, size * 2);
    } else if (!strcmp(mistake, "usable-freed")) {
        flagstone_heap_free(heap, block);
        size_t room = flagstone_heap_usable_size(heap, block);
        OPAQUE(room);
    } else if (!strcmp(mistake, "after-reset")) {
        flagstone_heap_reset(heap);
        flagstone_heap_free(heap, block);
    } else if (!strcmp(mistake, "drop-twice")) {
        flagstone_heap_drop(other);
        flagstone_heap_drop(other);
    } else if (!strcmp(mistake, "malloc-dropped")) {
        flagstone_heap_drop(other);
        block = flagstone_heap_malloc(other, size);
    } else if (!strcmp(mistake, "free-dropped")) {
        block = flagstone_heap_malloc(other, size);
        flagstone_heap_drop(other);
        flagstone_heap_free(other, block);
    } else {
        CHECK(!"a mistake");
    }
    puts("survived");
    return 0;
}
