// Two threads that allocate by every way there is, so often that memory goes back on the way: for tests of what others
// put before the C library's functions.
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    _exit(1);
}

// Blocks of every size, replaced at random; each says what it is.
static void churn(unsigned state, int rounds) {
    enum { LIVE = 256 };
    static const size_t most[] = {64, 1000, 9000, 40000, 70000, 300000, 3 << 20};
    unsigned char *blocks[LIVE] = {0};
    size_t lengths[LIVE];
    for (int round = 0; round < rounds; round++) {
        state = state * 1664525 + 1013904223;
        int slot = (state >> 8) % LIVE;
        size_t length = 1 + (state >> 4) % most[(state >> 16) % (round % 16 ? 3 : 7)];
        if (blocks[slot] && (blocks[slot][0] != (unsigned char)slot || blocks[slot][lengths[slot] - 1] != (unsigned char)slot))
            fail("a block was overwritten");
        if (blocks[slot] && round % 8 == 0) {
            blocks[slot] = realloc(blocks[slot], length);
        } else {
            free(blocks[slot]);
            blocks[slot] = round % 2 ? malloc(length) : calloc(1, length);
        }
        if (!blocks[slot])
            fail("no memory");
        lengths[slot] = length;
        blocks[slot][0] = blocks[slot][length - 1] = slot;
        if (round % 4096 == 4095)
            malloc_trim(0);
    }
    for (int slot = 0; slot < LIVE; slot++)
        free(blocks[slot]);
}

// A block that grows where it is, or is moved by the kernel.
static void grow(void) {
    size_t length = 1 << 20;
    char *block = malloc(length);
    for (; block && length < 64 << 20; length += length / 2) {
        block[length - 1] = 1;
        block = realloc(block, length + length / 2);
    }
    if (!block)
        fail("no memory");
    free(block);
}

static void *work(void *argument) {
    churn((unsigned)(uintptr_t)argument, 20000);
    grow();
    return argument;
}

int main(void) {
    alarm(60);
    for (int times = 0; times < 2; times++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)1))
            fail("no thread");
        work((void *)2);
        pthread_join(thread, NULL);
    }
    // Numbers, and a message of the allocator's own.
    struct mallinfo2 info = mallinfo2();
    malloc_stats();
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        churn(3, 5000);
        malloc_trim(0);
        _exit(info.arena ? 0 : 1);
    }
    int status;
    if (waitpid(child, &status, 0) != child || status != 0)
        fail("the child failed");
    puts("ok");
    return 0;
}
