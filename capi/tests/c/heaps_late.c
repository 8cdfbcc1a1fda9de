/* Heaps of a library that the program is not linked with: loaded at run time, beside another
 * malloc, if there is an argument, or preloaded. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <flagstone.h>
#include <pthread.h>
#include <string.h>

static flagstone_heap_t *(*heap_new)(void);
static void (*heap_drop)(flagstone_heap_t *);
static void *(*heap_malloc)(flagstone_heap_t *, size_t);
static void *(*heap_realloc)(flagstone_heap_t *, void *, size_t);
static void (*heap_free)(flagstone_heap_t *, void *);
static void (*get_stats)(const flagstone_heap_t *, struct flagstone_heap_stats *);

static flagstone_heap_t *common;
static pthread_barrier_t used, unloaded;

static void *thread(void *unused) {
    (void)unused;
    for (int i = 0; i < 3000; i++) {
        char *block = heap_malloc(common, i * 10), *others = malloc(i + 1);
        CHECK(block && others);
        memset(block, 1, i * 10);
        CHECK((block = heap_realloc(common, block, i * 17 + 1)));
        if (i % 2) heap_free(common, block);
        free(others);
    }
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&unloaded);
    return NULL;
}

int main(int count, char **arguments) {
    enum { THREADS = 4 };
    for (int round = 0; round < 3; round++) {
        void *library = RTLD_DEFAULT;
        if (count > 1 && !(library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL))) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        *(void **)&heap_new = dlsym(library, "flagstone_heap_new");
        *(void **)&heap_drop = dlsym(library, "flagstone_heap_drop");
        *(void **)&heap_malloc = dlsym(library, "flagstone_heap_malloc");
        *(void **)&heap_realloc = dlsym(library, "flagstone_heap_realloc");
        *(void **)&heap_free = dlsym(library, "flagstone_heap_free");
        *(void **)&get_stats = dlsym(library, "flagstone_heap_get_stats");
        CHECK(heap_new && heap_drop && heap_malloc && heap_realloc && heap_free && get_stats);
        CHECK((dlsym(library, "malloc") == (void *)malloc) == (count == 1));
        CHECK((common = heap_new()));
        pthread_barrier_init(&used, NULL, THREADS + 1);
        pthread_barrier_init(&unloaded, NULL, THREADS + 1);
        pthread_t threads[THREADS];
        for (int i = 0; i < THREADS; i++)
            CHECK(pthread_create(&threads[i], NULL, thread, NULL) == 0);
        pthread_barrier_wait(&used);
        struct flagstone_heap_stats stats;
        get_stats(common, &stats);
        CHECK(stats.blocks == THREADS * 1500 && stats.held >= stats.live);
        /* The threads end with parts of a heap that is gone, of a library that was unloaded. */
        heap_drop(common);
        if (count > 1) CHECK(dlclose(library) == 0);
        pthread_barrier_wait(&unloaded);
        for (int i = 0; i < THREADS; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    }
    puts("ok");
    return 0;
}
