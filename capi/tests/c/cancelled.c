/* A thread that is to be cancelled ends where it says, not inside the allocator, and what the allocator
   has to say is said in full. */
#define _GNU_SOURCE
#include "check.h"
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int stderr_before;
static volatile int reached, number, interrupted;
static char text[1 << 17];

/* Has standard error go to a pipe; its other end. */
static int listen_to_stderr(void) {
    int ends[2];
    CHECK(pipe(ends) == 0 && fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
    stderr_before = dup(2);
    CHECK(dup2(ends[1], 2) == 2 && close(ends[1]) == 0);
    return ends[0];
}

static void leave_stderr(void) {
    CHECK(dup2(stderr_before, 2) == 2 && close(stderr_before) == 0);
}

/* Adds what is in the pipe to the text; how long that is. */
static size_t listen_on(int pipe, size_t length) {
    for (ssize_t count; (count = read(pipe, text + length, sizeof text - 1 - length)) > 0;)
        length += count;
    text[length] = 0;
    return length;
}

static void expect_statistics(const char *said) {
    const char *live = strstr(said, "live "), *metadata = strstr(said, "metadata ");
    CHECK(live && metadata && live < metadata);
    CHECK(!strcmp(said + strlen(said) - 7, "tables\n"));
}

/* A thread that uses the allocator while it is to be cancelled. */
static void *look(void *unused) {
    number = syscall(SYS_gettid);
    CHECK(pthread_cancel(pthread_self()) == 0);
    void *block = malloc(1000);
    block = realloc(block, 4 << 20);
    free(block);
    reached = 1;
    malloc_stats();
    reached = 2;
    malloc_trim(0);
    mallinfo2();
    reached = 3;
    pthread_testcancel();
    reached = 4;
    return unused;
}

static pthread_t begin(void) {
    pthread_t thread;
    reached = number = 0;
    CHECK(pthread_create(&thread, NULL, look, NULL) == 0);
    return thread;
}

static void expect_cancelled_at_the_end(pthread_t thread) {
    void *result;
    CHECK(pthread_join(thread, &result) == 0);
    leave_stderr();
    CHECK(reached == 3 && result == PTHREAD_CANCELED);
}

static void statistics(void) {
    int pipe = listen_to_stderr();
    expect_cancelled_at_the_end(begin());
    listen_on(pipe, 0);
    expect_statistics(text);
    close(pipe);
}

/* The signal that nobody reads any more is taken back, which is a wait. */
static void nobody_reads(void) {
    close(listen_to_stderr());
    expect_cancelled_at_the_end(begin());
}

static void note(int signal) { interrupted = signal; }

static int sleeps(int thread) {
    char name[64], state[256];
    snprintf(name, sizeof name, "/proc/self/task/%d/stat", thread);
    int file = open(name, O_RDONLY);
    CHECK(file >= 0);
    ssize_t length = read(file, state, sizeof state - 1);
    CHECK(length > 0 && close(file) == 0);
    state[length] = 0;
    return strstr(state, ") S ") != NULL;
}

/* A signal comes while the pipe is full. */
static void interruption(void) {
    struct sigaction action = {.sa_handler = note};
    CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
    int pipe = listen_to_stderr();
    CHECK(fcntl(2, F_SETFL, O_NONBLOCK) == 0);
    size_t filled = 0;
    while (write(2, "-", 1) == 1) filled++;
    CHECK(fcntl(2, F_SETFL, 0) == 0);
    pthread_t thread = begin();
    while (reached < 1 || !sleeps(number)) sched_yield();
    CHECK(pthread_kill(thread, SIGUSR1) == 0);
    while (!interrupted) sched_yield();
    /* There is room again as this reads. */
    size_t length = 0;
    while (reached < 2) length = listen_on(pipe, length);
    length = listen_on(pipe, length);
    expect_cancelled_at_the_end(thread);
    CHECK(length > filled);
    expect_statistics(text + filled);
    close(pipe);
}

static void *free_what_is_none(void *place) {
    CHECK(pthread_cancel(pthread_self()) == 0);
    free(place);
    return NULL;
}

/* Misuse ends the process all the same. */
static void misuse(void) {
    static _Alignas(64) char none[64];
    int pipe = listen_to_stderr();
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        CHECK(pthread_create(&thread, NULL, free_what_is_none, none) == 0);
        pthread_join(thread, NULL);
        _exit(0);
    }
    int status;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    leave_stderr();
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    size_t length = listen_on(pipe, 0);
    CHECK(strstr(text, "flagstone: ") && text[length - 1] == '\n');
    close(pipe);
}

int main(void) {
    statistics();
    nobody_reads();
    interruption();
    misuse();
    puts("ok");
    return 0;
}
