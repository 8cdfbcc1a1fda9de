// A program that replaces the two basic forms only: the others come to these. Without this, one would free what the
// other has not allocated.
#include "check.h"
#include <cstring>
#include <new>
#include <string>
#include <vector>

static long live;
const unsigned char mark = 0x5a;

void *operator new(std::size_t size) {
    char *block = static_cast<char *>(std::malloc(size + 16));
    if (!block) throw std::bad_alloc();
    std::memset(block, mark, 16);
    live++;
    return block + 16;
}

void operator delete(void *block) noexcept {
    if (!block) return;
    char *start = static_cast<char *>(block) - 16;
    CHECK(static_cast<unsigned char>(*start) == mark);
    live--;
    std::free(start);
}

struct Thing {
    int numbers[10];
    ~Thing() {}
};

int main() {
    long before = live;
    Thing *one = new Thing, *many = new Thing[10];
    OPAQUE(one);
    OPAQUE(many);
    CHECK(live == before + 2);
    delete one;
    delete[] many;
    CHECK(live == before);
    {
        std::vector<std::string> strings;
        for (int length = 0; length < 1000; length++) strings.push_back(std::string(length, 'x'));
        CHECK(live > before);
    }
    CHECK(live == before);
    puts("ok");
    return 0;
}
