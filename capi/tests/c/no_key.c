/* The program has used up all keys, and a function of its own that creates them allocates. Without this, a child of a fork,
 * which tries once more to create one, could wait for itself. */
#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static int allocates, is_inside;

int pthread_key_create(pthread_key_t *key, void (*destructor)(void *)) {
    static int (*next)(pthread_key_t *, void (*)(void *));
    if (allocates && !is_inside) {
        is_inside = 1;
        void *block = malloc(40);
        OPAQUE(block);
        free(block);
        is_inside = 0;
    }
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "pthread_key_create");
    return next(key, destructor);
}

static void use_up(int count, char **arguments, char **environment) {
    (void)count, (void)arguments, (void)environment;
    pthread_key_t key;
    while (pthread_key_create(&key, NULL) == 0)
        ;
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) = use_up;

int main(void) {
    allocates = 1;
    void *block = malloc(10);
    OPAQUE(block);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        void *own = malloc(20);
        OPAQUE(own);
        free(own);
        free(block);
        _exit(own ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    puts("ok");
    return 0;
}
