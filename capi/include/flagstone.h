/* flagstone: what the allocator offers besides malloc and its kin. See flagstone(1).
 *
 * Thread-safe. Nothing here allocates, but for the thread that flagstone_start_background starts.
 */
#ifndef FLAGSTONE_H
#define FLAGSTONE_H

#include <stddef.h>

#define FLAGSTONE_VERSION "0.1.0"

#ifdef __cplusplus
extern "C" {
#endif

/* A snapshot, in bytes. Exact while no other thread calls the allocator. */
struct flagstone_stats {
    size_t live;      /* handed out and not freed, counted in whole blocks */
    size_t cached;    /* free blocks in the caches of threads */
    size_t committed; /* readable and writable for blocks, free ones included */
    size_t resident;  /* of the committed bytes, those in memory */
    size_t metadata;  /* in memory for the allocator's own tables */
};

/* What the allocator holds at the moment, into *out. Walks all chunks: not for every request. */
void flagstone_get_stats(struct flagstone_stats *out);

/* Gives all memory back to the kernel that can be given back. Bytes given back. Other threads wait at their
 * next call for a block until it ends. */
size_t flagstone_purge(void);

/* Starts a thread that gives memory back when the program has gone idle, as FLAGSTONE_BACKGROUND=on does before main:
 * 0, or EAGAIN if the system refuses a thread. A second call does nothing; a child of fork has none.
 * It is a thread like any other to who counts on having one only: unshare, setns, a fork in a signal handler. */
int flagstone_start_background(void);

/* Checks the allocator's tables, under its locks: 0, or -1 after a line on standard error that says what is
 * wrong, which is a bug of the allocator or a stray write. */
int flagstone_verify(void);

/* Changes an option of the running process; name and value as in the environment. 0, or
 *   EINVAL  for an unknown name, or a value that does not parse
 *   EBUSY   for FLAGSTONE_HARDENED and FLAGSTONE_SAMPLE, which are decided at the first call
 *   ENOMEM  without memory for the first call
 * errno stays as it is. */
int flagstone_set_option(const char *name, const char *value);

/* The version of the library that is loaded. */
const char *flagstone_version(void);

#ifdef __cplusplus
}
#endif

#endif
