/* flagstone: what the allocator offers besides malloc and its kin. See flagstone(1).
 *
 * Thread-safe. Nothing here allocates, but for heaps, and the thread that
 * flagstone_start_background starts.
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

/* A heap: memory of one request, tenant or document, counted, limited and freed as one. An empty
 * one holds 4 KiB. Any thread may use it, beside others, but for flagstone_heap_drop and
 * flagstone_heap_reset: these need that no other thread is in a call for the heap, or uses a
 * block of it later.
 *
 * A block belongs to its heap: that heap's functions resize and free it, not free or realloc. A
 * free in another heap, or a second one, that is noticed ends the process as it does with free. */
typedef struct flagstone_heap flagstone_heap_t;

/* A heap without a name or a limit. NULL with ENOMEM without memory. */
flagstone_heap_t *flagstone_heap_new(void);

/* A heap with a name, unless it is NULL, and a bound on the bytes that it may hold, unless it is 0.
 * NULL with
 *   EINVAL  for a name that is not UTF-8, or a limit below 4096
 *   ENOMEM  without memory */
flagstone_heap_t *flagstone_heap_new_with(const char *name, size_t limit);

/* What the memory of a heap is to be, for flagstone_heap_new_of. At most one of the first three.
 * Heaps with the same flags share chunks of 4 MiB, from which they have multiples of 2 KiB. */
#define FLAGSTONE_HEAP_HUGE_PAGES (1u << 0)     /* asks for huge pages from the first block on */
#define FLAGSTONE_HEAP_SMALL_PAGES (1u << 1)    /* has no huge pages */
#define FLAGSTONE_HEAP_GIGANTIC_PAGES (1u << 2) /* pages of 1 GiB that the machine has set aside */
#define FLAGSTONE_HEAP_NO_CORE_DUMPS (1u << 3)  /* blocks stand in no core dump */
#define FLAGSTONE_HEAP_MERGEABLE (1u << 4)      /* the kernel may keep equal pages once (KSM) */
#define FLAGSTONE_HEAP_ON_NODE (1u << 5)        /* from the node of memory of this number, while it has some */

/* As flagstone_heap_new_with. NULL with
 *   EINVAL   for flags that are unknown or exclude each other, too
 *   ENOTSUP  where the kernel or the machine has no such memory */
flagstone_heap_t *flagstone_heap_new_of(const char *name, size_t limit, unsigned flags, unsigned node);

/* Frees all blocks of the heap, and the heap. NULL is none. It takes time for each 2 to 32 KiB
 * of blocks, not for each block. errno stays as it is. */
void flagstone_heap_drop(flagstone_heap_t *heap);

/* Frees all blocks of the heap, which is as it was made, with its name and its present limit.
 * errno stays as it is. */
void flagstone_heap_reset(flagstone_heap_t *heap);

/* As malloc and its kin, see flagstone(1): aligned to 16, errno set and kept as there. Beyond
 * the heap's limit there is NULL with ENOMEM, too. */
void *flagstone_heap_malloc(flagstone_heap_t *heap, size_t size);
void *flagstone_heap_calloc(flagstone_heap_t *heap, size_t count, size_t size);
void *flagstone_heap_aligned_alloc(flagstone_heap_t *heap, size_t align, size_t size);
void *flagstone_heap_realloc(flagstone_heap_t *heap, void *block, size_t size);
void flagstone_heap_free(flagstone_heap_t *heap, void *block);
size_t flagstone_heap_usable_size(const flagstone_heap_t *heap, const void *block);

/* Changes the limit; 0 is none. Where the heap holds more already, it is refused more until it
 * holds less. */
void flagstone_heap_set_limit(flagstone_heap_t *heap, size_t limit);

/* Gives back what the heap has free, as far as the calling thread may: its own, and what threads
 * left that ended. Empty sub-slabs go to the allocator, free pages in others to the kernel. How
 * many bytes. */
size_t flagstone_heap_purge(flagstone_heap_t *heap);

/* What a heap holds, in bytes but for the blocks. Exact while no other thread is in a call for
 * it. */
struct flagstone_heap_stats {
    size_t live;   /* handed out and not freed, counted in whole blocks */
    size_t blocks; /* how many these are */
    size_t held;   /* these, free memory that the heap keeps, and its tables: the limit's bytes */
    size_t peak;   /* the most that was held since the heap was made or reset */
    size_t refused; /* requests that were refused since the heap was made */
};

/* What the heap holds at the moment, into *out. Takes time for each thread that has used the
 * heap. */
void flagstone_heap_get_stats(const flagstone_heap_t *heap, struct flagstone_heap_stats *out);

/* The first 47 bytes of the heap's name, whole characters of them; "" if it has none. Valid
 * until the heap is dropped. */
const char *flagstone_heap_name(const flagstone_heap_t *heap);

#ifdef __cplusplus
}
#endif

#endif
