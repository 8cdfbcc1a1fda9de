// A C++ library that a program in C loads for itself alone.
#include <cstddef>
#include <cstdint>
#include <new>

extern "C" int try_too_much() {
    volatile std::size_t much = PTRDIFF_MAX;
    int caught = 0;
    try {
        void *volatile block = ::operator new(much);
        (void)block;
    } catch (const std::bad_alloc &) {
        caught = 1;
    }
    return caught && !::operator new(much, std::nothrow);
}
