/* What every test program here uses. */
#ifndef CHECK_H
#define CHECK_H
#include <stdio.h>
#include <stdlib.h>

/* Ends the program with 1 and says where, unless `condition` holds. */
#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);     \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

/* Keeps the compiler from knowing what a pointer points to, or that it is unused. */
#define OPAQUE(value) __asm__ volatile("" : "+r"(value) : : "memory")
#endif
