/* Whose cache is it? Two ways for a cache to get to two threads: a value that stays behind in a stack that the next thread
 * is given ("stack"), and a child that shares the memory and is another process ("vfork"). */
#define _GNU_SOURCE
#include "check.h"
#include "flagstone.h"
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* With the first thread's there are as many caches as may be before threads are looked after. */
enum { KEYS = 40, LIVING = 39, LATER = 100, ROUNDS = 3000 };

static pthread_key_t last_key;
static sem_t may_begin, has_begun;
static pthread_barrier_t barrier;

/* Before the library's own beginning: its key is not among the first 32. */
static void create_keys(int count, char **arguments, char **environment) {
    (void)count, (void)arguments, (void)environment;
    for (int i = 0; i < KEYS; i++)
        CHECK(pthread_key_create(&last_key, NULL) == 0);
}

__attribute__((section(".preinit_array"), used)) static void (*const first)(int, char **, char **) = create_keys;

static void use(long number, int rounds) {
    for (long round = 0; round < rounds; round++) {
        long *block = malloc(200), *other = malloc(200);
        OPAQUE(block);
        OPAQUE(other);
        block[3] = number, block[9] = round;
        other[3] = ~number, other[9] = ~round;
        OPAQUE(block);
        CHECK(block[3] == number && block[9] == round);
        free(block);
        free(other);
    }
}

/* Begins when it is told to, and uses what it has beside the others. */
static void *living(void *number) {
    sem_wait(&may_begin);
    use((long)number, 1);
    sem_post(&has_begun);
    pthread_barrier_wait(&barrier);
    use((long)number, ROUNDS);
    return NULL;
}

static void join(pthread_t *threads, int count) {
    for (int i = 0; i < count; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
}

static void once(void *(*life)(void *)) {
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, life, NULL) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* Its only calls are those of the C library for a table, the last of them when its keys were cleaned up. */
static void *set_key(void *unused) {
    (void)unused;
    CHECK(pthread_setspecific(last_key, &last_key) == 0);
    return NULL;
}

static void *fork_and_allocate(void *unused) {
    (void)unused;
    pid_t child = vfork();
    if (child == 0) {
        void *block = malloc(48);
        OPAQUE(block);
        free(block);
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, NULL, 0) == child);
    return NULL;
}

static void start(pthread_t *threads, int count, long from) {
    for (long i = 0; i < count; i++)
        CHECK(pthread_create(&threads[i], NULL, living, (void *)(from + i)) == 0);
}

/* One after the other. */
static void begin(int count) {
    for (int i = 0; i < count; i++) {
        sem_post(&may_begin);
        sem_wait(&has_begun);
    }
}

static void by_stack(void) {
    pthread_t threads[2];
    /* In a table of their own, behind that of the library's key. */
    create_keys(0, NULL, NULL);
    CHECK(pthread_barrier_init(&barrier, NULL, 3) == 0);
    /* Before the stack that the others are given one after the other. */
    start(threads, 2, 0);
    once(set_key);
    /* What that thread may have left goes to the next that begins. */
    flagstone_purge();
    for (int i = 0; i < 2; i++) {
        begin(1);
        once(set_key);
    }
    pthread_barrier_wait(&barrier);
    join(threads, 2);
}

static void by_vfork(void) {
    pthread_t threads[LIVING], later[LATER];
    CHECK(pthread_barrier_init(&barrier, NULL, LIVING + LATER + 1) == 0);
    start(threads, LIVING, 0);
    begin(LIVING);
    once(fork_and_allocate);
    start(later, LATER, LIVING);
    begin(LATER);
    pthread_barrier_wait(&barrier);
    join(threads, LIVING);
    join(later, LATER);
}

int main(int count, char **arguments) {
    CHECK(count == 2);
    CHECK(sem_init(&may_begin, 0, 0) == 0 && sem_init(&has_begun, 0, 0) == 0);
    if (!strcmp(arguments[1], "stack"))
        by_stack();
    else
        by_vfork();
    CHECK(flagstone_verify() == 0);
    puts("ok");
    return 0;
}
