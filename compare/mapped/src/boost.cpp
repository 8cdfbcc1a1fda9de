// A segment of Boost.Interprocess as the rows use it: with its own algorithm and mutex, as documented.
#include <boost/interprocess/managed_shared_memory.hpp>
#include <new>

namespace bi = boost::interprocess;

extern "C" void *boost_create(const char *name, std::size_t bytes) {
    try {
        bi::shared_memory_object::remove(name);
        auto *segment = new bi::managed_shared_memory(bi::create_only, name, bytes);
        // The mapping stays, in children of a fork, too.
        bi::shared_memory_object::remove(name);
        return segment;
    } catch (...) {
        return nullptr;
    }
}

extern "C" void *boost_allocate(void *segment, std::size_t bytes) {
    return static_cast<bi::managed_shared_memory *>(segment)->allocate(bytes, std::nothrow);
}

extern "C" void boost_deallocate(void *segment, void *block) {
    static_cast<bi::managed_shared_memory *>(segment)->deallocate(block);
}

extern "C" void boost_destroy(void *segment) { delete static_cast<bi::managed_shared_memory *>(segment); }
