/* Loads plugin.cpp, named by the first argument, as interpreters load extensions. */
#include "check.h"
#include <dlfcn.h>

int main(int count, char **arguments) {
    CHECK(count == 2);
    void *library = dlopen(arguments[1], RTLD_NOW | RTLD_LOCAL);
    CHECK(library);
    int (*try_too_much)(void) = (int (*)(void))dlsym(library, "try_too_much");
    CHECK(try_too_much && try_too_much() == 1);
    puts("ok");
    return 0;
}
