/* Preloaded: allocations before main, in constructors, destructors, exit handlers, pthread keys beyond those
 * that need no memory, and a fork between busy threads. */
#define _GNU_SOURCE
#include "check.h"
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *kept;
static volatile int stop;

__attribute__((constructor(101))) static void first(void) {
    kept = malloc(100);
    strcpy(kept, "from a constructor");
}

__attribute__((destructor)) static void last(void) { free(malloc(5000)); }

static void handler(void) { free(malloc(50)); }

static void in_key(void *block) {
    free(block);
    free(malloc(300));
}

static void *busy(void *unused) {
    while (!stop) {
        char *block = malloc(700);
        block = realloc(block, 40000);
        free(block);
    }
    return unused;
}

int main(void) {
    CHECK(!strcmp(kept, "from a constructor"));
    free(kept);
    for (int i = 0; i < 100; i++) atexit(handler);
    pthread_key_t keys[60];
    for (int i = 0; i < 60; i++) {
        CHECK(pthread_key_create(&keys[i], in_key) == 0);
        CHECK(pthread_setspecific(keys[i], malloc(20)) == 0);
    }
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) CHECK(pthread_create(&threads[i], NULL, busy, NULL) == 0);
    for (int round = 0; round < 100; round++) {
        char *block = malloc(1000);
        memset(block, round, 1000);
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            CHECK(block[999] == (char)round);
            block = realloc(block, 100000);
            free(block);
            for (int i = 0; i < 200; i++) free(malloc(i * 100));
            fflush(NULL);
            _exit(0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        free(block);
    }
    stop = 1;
    for (int i = 0; i < 3; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    puts("ok");
    return 0;
}
