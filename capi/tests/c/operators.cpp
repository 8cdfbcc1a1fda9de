// Every form of operator new and delete, and what they do without memory.
#include "check.h"
#include <cstdint>
#include <cstring>
#include <malloc.h>
#include <map>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

namespace {

const std::size_t much = PTRDIFF_MAX;
int calls;
char *reserve;

bool is_aligned(void *block, std::size_t align) {
    return reinterpret_cast<std::uintptr_t>(block) % align == 0;
}

template <typename Allocate> bool throws(Allocate allocate) {
    try {
        void *block = allocate();
        OPAQUE(block);
    } catch (const std::bad_alloc &) {
        return true;
    }
    return false;
}

void forms() {
    const std::align_val_t align{256};
    for (std::size_t size : {0, 1, 24, 1000, 5000, 40000, 300000, 2000000}) {
        void *plain = ::operator new(size), *array = ::operator new[](size);
        void *nothrow = ::operator new(size, std::nothrow);
        void *nothrow_array = ::operator new[](size, std::nothrow);
        void *aligned = ::operator new(size, align), *aligned_array = ::operator new[](size, align);
        void *both = ::operator new(size, align, std::nothrow);
        void *both_array = ::operator new[](size, align, std::nothrow);
        for (void *block : {plain, array, nothrow, nothrow_array, aligned, aligned_array, both, both_array}) {
            CHECK(block && is_aligned(block, 16) && malloc_usable_size(block) >= size);
            std::memset(block, 1, size);
        }
        for (void *block : {aligned, aligned_array, both, both_array}) CHECK(is_aligned(block, 256));
        ::operator delete(plain, size);
        ::operator delete[](array, size);
        ::operator delete(nothrow, std::nothrow);
        ::operator delete[](nothrow_array, std::nothrow);
        ::operator delete(aligned, size, align);
        ::operator delete[](aligned_array, size, align);
        ::operator delete(both, align, std::nothrow);
        ::operator delete[](both_array, align, std::nothrow);
        ::operator delete(::operator new(size));
        ::operator delete[](::operator new[](size));
        ::operator delete(::operator new(size, align), align);
        ::operator delete[](::operator new[](size, align), align);
        // What new allocates, free frees, and the other way round, as in glibc.
        std::free(::operator new(size));
        ::operator delete(std::malloc(size));
    }
    ::operator delete(nullptr);
    ::operator delete[](nullptr, 8);
}

// No form has a block of so many bytes, whatever rounding up makes of them. SIZE_MAX is what clang
// asks for if the length of an array overflows.
void impossible(std::size_t size) {
    OPAQUE(size);
    CHECK(throws([=] { return ::operator new(size); }));
    CHECK(throws([=] { return ::operator new[](size); }));
    CHECK(!::operator new(size, std::nothrow) && !::operator new[](size, std::nothrow));
    for (int bits : {0, 3, 4, 6, 12, 21, 62, 63}) {
        const std::align_val_t align{std::size_t{1} << bits};
        CHECK(throws([=] { return ::operator new(size, align); }));
        CHECK(throws([=] { return ::operator new[](size, align); }));
        CHECK(!::operator new(size, align, std::nothrow));
        CHECK(!::operator new[](size, align, std::nothrow));
    }
}

void no_memory() {
    std::size_t size = much;
    OPAQUE(size);
    const std::align_val_t align{64};
    CHECK(throws([=] { return ::operator new(size); }));
    CHECK(throws([=] { return ::operator new[](size); }));
    CHECK(throws([=] { return ::operator new(size, align); }));
    CHECK(throws([=] { return ::operator new[](size, align); }));
    CHECK(!::operator new(size, std::nothrow) && !::operator new[](size, std::nothrow));
    CHECK(!::operator new(size, align, std::nothrow) && !::operator new[](size, align, std::nothrow));
    for (std::size_t below : {0, 1, 14, 15, 16, 62, 63, 64, 4094, 4095, 4096})
        impossible(SIZE_MAX - below);
    for (std::size_t above : {0, 1, 2, 16, 64, 4096}) impossible(much + above);
    CHECK(throws([] {
        std::vector<std::string> strings;
        strings.reserve(strings.max_size());
        return strings.data();
    }));
}

// A handler that frees memory until there is none left, then throws.
void handler() {
    calls++;
    if (!reserve) throw std::bad_alloc();
    delete[] reserve;
    reserve = nullptr;
}

void handlers() {
    std::size_t size = much;
    OPAQUE(size);
    std::set_new_handler(handler);
    reserve = new char[1 << 20];
    calls = 0;
    CHECK(throws([=] { return ::operator new(size); }) && calls == 2);
    CHECK(throws([=] { return ::operator new[](size, std::align_val_t{64}); }) && calls == 3);
    // A handler that throws gives null here. It is not called where the C++ library is linked statically.
    CHECK(!::operator new(size, std::nothrow));
    CHECK(!::operator new(size, std::align_val_t{64}, std::nothrow));
#ifndef STATIC
    CHECK(calls == 5);
#endif
    calls = 5;
    std::size_t most = SIZE_MAX;
    OPAQUE(most);
    CHECK(throws([=] { return ::operator new(most, std::align_val_t{64}); }) && calls == 6);
    calls = 5;
    // One that removes itself ends the calls.
    std::set_new_handler([] {
        calls++;
        std::set_new_handler(nullptr);
    });
    CHECK(throws([=] { return ::operator new(size); }) && calls == 6);
}

void containers() {
    std::vector<std::thread> threads;
    for (int number = 0; number < 4; number++)
        threads.emplace_back([number] {
            std::map<std::string, std::unique_ptr<std::vector<int>>> all;
            for (int i = 0; i < 20000; i++) {
                std::string key = std::to_string(i * 7919 % 4001 + number) + std::string(i % 60, 'k');
                auto &entry = all[key];
                if (!entry) entry = std::make_unique<std::vector<int>>();
                entry->push_back(i);
                if (i % 3 == 0) all.erase(all.begin());
            }
            CHECK(!all.empty());
        });
    for (auto &thread : threads) thread.join();
}

} // namespace

int main() {
    forms();
    no_memory();
    handlers();
    containers();
    std::puts("ok");
}
