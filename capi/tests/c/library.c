/* Loads libflagstone.so at run time, threads use it, and it is unloaded before they end. */
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>

static pthread_barrier_t used, unloaded;
static void *(*allocate)(size_t);
static void (*release)(void *);

static void *thread(void *unused) {
    for (int i = 0; i < 1000; i++) release(allocate(i * 10));
    pthread_barrier_wait(&used);
    pthread_barrier_wait(&unloaded);
    return unused;
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    for (int round = 0; round < 3; round++) {
        void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
        if (!library) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        allocate = (void *(*)(size_t))dlsym(library, "malloc");
        release = (void (*)(void *))dlsym(library, "free");
        CHECK(allocate && release);
        pthread_barrier_init(&used, NULL, 5);
        pthread_barrier_init(&unloaded, NULL, 5);
        pthread_t threads[4];
        for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, thread, NULL) == 0);
        pthread_barrier_wait(&used);
        CHECK(dlclose(library) == 0);
        pthread_barrier_wait(&unloaded);
        for (int i = 0; i < 4; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    }
    puts("ok");
    return 0;
}
