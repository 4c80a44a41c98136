/* emu_race.cpp - what the instrumented builds report to: data races, exact bounds, bank conflicts, uncoalesced accesses.

The race build is compiled with -fsanitize=thread but linked without its library: its calls for every load and store end
here. Two accesses race when they touch the same bytes, one writes, and no barrier lies between. "Between" is known from
time stamps: `now` counts synchronisations, an access is stamped with it, and known(a, b) is the time up to which thread
a has heard of b's accesses. __syncthreads, in a cluster cluster_sync, lets all hear of all (one number, `met`), __syncwarp does
for its lanes, a named barrier or an mbarrier carries a clock from those who arrive to those who wait. Shuffles and mma order
nothing. */
#include "emu_rt.h"
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>

namespace emu {

void atomic(const void *p, size_t bytes, Site here) { race::access(p, bytes, race::ATOMIC, here); }

namespace race {

// ------------------------------------------------------------------------------------------------------ who knows what
static uint32_t now = 1, block_start, met;
static uint32_t heard[MAX_THREADS][MAX_THREADS];
static bool crossed;                                 // knowledge has passed between warps other than by __syncthreads

static std::vector<uint32_t> fences[MAX_THREADS];    // when each thread has shown its writes to TMA and wgmma, in this block

void fence(int thread) { fences[thread].push_back(now++); }
static uint32_t known(int a, int b) { return std::max(met, heard[a][b]); }
static bool knows(int a, int b, uint32_t time) { return met >= time || heard[a][b] >= time; }      // mostly without the large table

static bool shown(int writer, uint32_t time, int reader)      // has the writer fenced since, and the reader heard of it?
{
    auto fence = std::lower_bound(fences[writer].begin(), fences[writer].end(), time);
    return fence != fences[writer].end() && (writer == reader || knows(reader, writer, *fence));
}

void all_meet() { met = now++; }
void block_meets(int rank)
{
    if (launch->cluster == 1) return all_meet();
    int first = first_of(rank), end = first_of(rank + 1);
    crossed = true;
    for (int u = 0; u < threads; u++) {
        uint32_t latest = 0;
        for (int t = first; t < end; t++) latest = std::max(latest, heard[t][u]);
        if (rank_of(u) == rank) latest = now;
        for (int t = first; t < end; t++) heard[t][u] = latest;
    }
    now++;
}
void warp_meets(int first, unsigned mask)
{
    int from = crossed ? 0 : first, to = crossed ? threads : std::min(first + 32, threads);
    for (int u = from; u < to; u++) {
        uint32_t latest = 0;
        for (int k = 0; k < 32; k++) if (mask >> k & 1) latest = std::max(latest, heard[first + k][u]);
        if (u / 32 == first / 32 && mask >> u % 32 & 1) latest = now;
        for (int k = 0; k < 32; k++) if (mask >> k & 1) heard[first + k][u] = latest;
    }
    now++;
}
void release(Clock &clock, int thread)
{
    crossed = true;
    clock.resize(threads);
    for (int u = 0; u < threads; u++) clock[u] = std::max(clock[u], known(thread, u));
    clock[thread] = now++;
}
void acquire(const Clock &clock, int thread)
{
    for (unsigned u = 0; u < clock.size(); u++) heard[thread][u] = std::max(heard[thread][u], clock[u]);
}

// --------------------------------------------------------------------------------------------------------- the shadow
// Every 4 bytes of shared memory and of writable arrays remember up to four accesses that a later one could race with.
// A word of them is a line of the cache.
struct Access { uint64_t where; uint32_t time; uint16_t thread; uint8_t bytes : 4, kind : 3, proxy : 1; };      // bytes: one bit each
typedef std::array<Access, 4> Word;
static std::vector<Word> dynamic_words[MAX_CLUSTER], static_words;
static std::vector<std::vector<Word>> buffer_words;

// Of every 4 bytes of shared memory, where the cp.async stands that is on its way there; 0: none. Whoever touches them before its
// thread has waited, be it that thread itself, or ordered behind the issue, cannot know what is there.
static std::vector<uint64_t> dynamic_landing[MAX_CLUSTER], static_landing;

void on_its_way(const char *to, size_t bytes, uint64_t where)
{
    bool fixed = to >= statics && to < statics + statics_bytes;
    auto &landing = fixed ? static_landing : dynamic_landing[rank_of(current)];
    std::fill_n(landing.begin() + (to - (fixed ? statics : arena)) / 4, bytes / 4, where);
}

static void look(Word &word, const Access &mine, bool global, const char *name, long offset)
{
    static const char *verbs[] = {"read", "write", "atomic"};
    Access *free = nullptr;
    for (Access &old : word) {
        if (!old.time || (!global && old.time <= block_start)) { old.time = 0, free = &old; continue; }
        bool foreign = old.time <= block_start;                                       // another block: never ordered
        bool ordered = !foreign && (old.thread == mine.thread || knows(mine.thread, old.thread, old.time));
        bool harmless = (old.kind == READ && mine.kind == READ) || (old.kind == ATOMIC && mine.kind == ATOMIC);
        if (!ordered && !harmless && old.bytes & mine.bytes) {
            char other[64];
            snprintf(other, sizeof other, "%s%s", who(old.thread), foreign ? " of another block" : "");
            fail_at(mine.where, "race in %s at byte %ld: %s here, %s by %s at %s", name, offset, verbs[mine.kind],
                    verbs[old.kind], other, place(old.where));
        }
        if (ordered && mine.proxy && old.kind == WRITE && !old.proxy && old.bytes & mine.bytes &&
            !shown(old.thread, old.time, mine.thread))
            fail_at(mine.where, "%s at byte %ld: TMA or wgmma here, written by %s at %s without a "
                    "fence_async_proxy since", name, offset, who(old.thread), place(old.where));
        bool stronger = mine.kind == WRITE || old.kind == READ || old.kind == mine.kind;
        bool covers = stronger && !(old.bytes & ~mine.bytes);
        if (ordered && covers) old.time = 0, free = &old;
    }
    static unsigned victim;
    *(free ? free : &word[victim++ % 4]) = mine;
}

static void note_traffic(bool shared, int thread, size_t offset, size_t bytes, uint64_t where);

// The last time that each thread of another block of the cluster has reached into a block's shared memory. One of the block
// must know of it, or it might have left before.
struct Reach { uint32_t time; uint64_t where; };
static std::map<int, Reach> reached[MAX_CLUSTER];

void leave(int rank)
{
    for (auto &[thread, last] : reached[rank]) {
        bool known_of = false;
        for (int t = first_of(rank); t < first_of(rank + 1) && !known_of; t++) known_of = knows(t, thread, last.time);
        if (!known_of)
            fail_at(last.where, "%s reaches here into block %d of the cluster, which may leave before that", who(thread), rank);
    }
}

void access(int thread, const void *address, size_t bytes, Kind kind, uint64_t where)
{
    const char *p = (const char *)address;
    if (!launch || on_stack(p)) return;
    std::vector<Word> *words = nullptr;
    std::vector<uint64_t> *landing = nullptr;
    const char *start, *name;
    bool shared = true;
    int rank = 0;
    while (rank < (int)launch->cluster && !in_arena(p, rank)) rank++;
    if (rank < (int)launch->cluster) {
        words = &dynamic_words[rank], landing = &dynamic_landing[rank], start = arenas[rank], name = "dynamic shared memory";
        if (p + bytes > start + launch->shared)
            fail_at(where, "outside dynamic shared memory: byte offset %ld of %u", (long)(p - start), launch->shared);
        if (rank != rank_of(thread)) reached[rank][thread] = {now, where};
    } else if (p >= statics && p < statics + statics_bytes)
        words = &static_words, landing = &static_landing, start = statics, name = "static shared memory";
    else
        for (int k = 0; k < launch->n_buffers && !words; k++) {
            const Buffer &b = launch->buffers[k];
            if (p < b.mapping || p >= b.mapping + b.mapped) continue;
            if (p < b.device || p + bytes > b.device + b.bytes)
                fail_at(where, "%s outside '%s': byte offset %ld of %zu", (kind & ~PROXY) == READ ? "read" : "write", b.name,
                        (long)(p - b.device), b.bytes);
            words = &buffer_words[k], start = b.device, name = b.name, shared = false;
        }
    if (!words) return;                                                               // a constant, threadIdx
    if (launch->report) note_traffic(shared, thread, p - start, bytes, where);
    if (words->empty()) return;                                                       // a const array
    for (size_t first = p - start, end = first + bytes; first < end; first = (first / 4 + 1) * 4) {
        uint8_t mask = 15 << first % 4 & 15;
        if (end < (first / 4 + 1) * 4) mask &= 15 >> (4 - end % 4);
        if (uint64_t copy = shared ? (*landing)[first / 4] : 0)
            fail_at(where, "race in %s at byte %zu: the copy of %s is on its way there", name, first, place(copy));
        Access mine = {where, now, (uint16_t)thread, mask, uint8_t(kind & ~PROXY), uint8_t((kind & PROXY) != 0)};
        look((*words)[first / 4], mine, !shared, name, first);
    }
}

// ----------------------------------------------------------------------------------- bank conflicts and sectors per line
// The k-th time that the lanes of a warp come through a line since the last __syncthreads counts as one instruction.
// Addresses are offsets from the start of their memory, which a GPU aligns to 256 bytes and more.
const size_t ABSENT = -1;
struct Instruction { size_t lane[32], bytes = 0; Instruction() { std::fill_n(lane, 32, ABSENT); } };
struct Traffic { size_t actual = 0, ideal = 0; };
typedef std::pair<uint64_t, bool> Line;                                               // where, shared
static std::map<Line, std::map<std::pair<int, int>, Instruction>> pending;            // -> (warp, occurrence)
static std::map<Line, std::vector<int>> occurrences;
static std::map<Line, Traffic> traffic;

static void note_traffic(bool shared, int thread, size_t offset, size_t bytes, uint64_t where)
{
    std::vector<int> &times = occurrences[{where, shared}];
    times.resize(threads);
    Instruction &i = pending[{where, shared}][{thread / 32, times[thread]++}];
    i.lane[thread % 32] = offset, i.bytes = std::max(i.bytes, bytes);
}
static size_t distinct(std::vector<size_t> &items)
{
    std::sort(items.begin(), items.end());
    return std::unique(items.begin(), items.end()) - items.begin();
}
static void count_shared(const Instruction &i, Traffic &t)     // 32 banks of 4 bytes; wide accesses go in 2 or 4 phases
{
    int lanes = i.bytes <= 4 ? 32 : i.bytes <= 8 ? 16 : 8;
    for (int first = 0; first < 32; first += lanes) {
        std::vector<size_t> words;
        size_t banks[32] = {}, worst = 0;
        for (int k = first; k < first + lanes; k++)
            for (size_t byte = 0; i.lane[k] != ABSENT && byte < i.bytes; byte += 4)
                words.push_back((i.lane[k] + byte) / 4);
        words.resize(distinct(words));
        for (size_t word : words) worst = std::max(worst, ++banks[word % 32]);
        t.actual += worst, t.ideal += worst > 0;
    }
}
static void count_global(const Instruction &i, Traffic &t)     // sectors of 32 bytes; ideal: the fewest that hold the data
{
    std::vector<size_t> sectors, bytes;
    for (size_t start : i.lane)
        for (size_t byte = 0; start != ABSENT && byte < i.bytes; byte++)
            bytes.push_back(start + byte), sectors.push_back((start + byte) / 32);
    t.actual += distinct(sectors), t.ideal += (distinct(bytes) + 31) / 32;
}
static void count()
{
    for (auto &[line, instructions] : pending)
        for (auto &[when, i] : instructions) (line.second ? count_shared : count_global)(i, traffic[line]);
    pending.clear(), occurrences.clear();
}

// ------------------------------------------------------------------------------------------------- course of a launch
void start_launch()
{
    for (unsigned rank = 0; rank < launch->cluster; rank++) {
        dynamic_words[rank].resize((MAX_SHARED + 1024) / 4);
        dynamic_landing[rank].assign((MAX_SHARED + 1024) / 4, 0);
    }
    static_words.resize(statics_bytes / 4 + 1), static_landing.assign(statics_bytes / 4 + 1, 0);
    buffer_words.assign(launch->n_buffers, {});
    for (int k = 0; k < launch->n_buffers; k++)
        if (launch->buffers[k].writable) buffer_words[k].resize(launch->buffers[k].bytes / 4 + 1);
    pending.clear(), occurrences.clear(), traffic.clear();
    crossed = false;
}
void start_block()
{
    block_start = met = now++;
    for (auto &of_block : reached) of_block.clear();
    for (std::vector<uint32_t> &of_thread : fences) of_thread.clear();
}
void end_block() { if (launch->report) count(); }
void end_launch()                                                 // lines "place space actual ideal" for emu.py
{
    std::string text;
    for (auto &[line, t] : traffic)
        text += std::string(place(line.first)) + "\t" + (line.second ? "shared" : "global") + "\t" +
                std::to_string(t.actual) + "\t" + std::to_string(t.ideal) + "\n";
    if (launch->report) snprintf(launch->report, launch->report_size, "%s", text.c_str());
    buffer_words.clear();
}

}
}

// ------------------------------------------------------------------------------------- calls made by instrumented code
#define EXPORT extern "C" __attribute__((visibility("default")))
#define PC ((uint64_t)__builtin_return_address(0) - 1)
#define HOOKS(n)                                                                                                    \
    EXPORT void __tsan_read##n(void *p) { emu::race::access(emu::current, p, n, emu::race::READ, PC); }             \
    EXPORT void __tsan_write##n(void *p) { emu::race::access(emu::current, p, n, emu::race::WRITE, PC); }           \
    EXPORT void __tsan_unaligned_read##n(void *p) { emu::race::access(emu::current, p, n, emu::race::READ, PC); }   \
    EXPORT void __tsan_unaligned_write##n(void *p) { emu::race::access(emu::current, p, n, emu::race::WRITE, PC); }
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
EXPORT void __tsan_read_range(void *p, size_t n) { emu::race::access(emu::current, p, n, emu::race::READ, PC); }
EXPORT void __tsan_write_range(void *p, size_t n) { emu::race::access(emu::current, p, n, emu::race::WRITE, PC); }
EXPORT void __tsan_init() {}
EXPORT void __tsan_func_entry(void *) {}
EXPORT void __tsan_func_exit() {}

struct Place { const char *file; uint32_t line, column; };
struct Type { uint16_t kind, info; char name[1]; };
static uint64_t where(const Place *p) { return emu::where_of({p->file, (int)p->line}); }

EXPORT void __ubsan_handle_out_of_bounds(Place *p, long index)
{ emu::fail_at(where(p), "index %ld is out of bounds of %s", index, (*(Type **)(p + 1))->name); }
EXPORT void __ubsan_handle_type_mismatch_v1(Place *p, void *address)
{ emu::fail_at(where(p), "address %p is misaligned for %s", address, (*(Type **)(p + 1))->name); }
EXPORT void __ubsan_handle_shift_out_of_bounds(Place *p, long, long by) { emu::fail_at(where(p), "shift by %ld", by); }
EXPORT void __ubsan_handle_divrem_overflow(Place *p) { emu::fail_at(where(p), "integer division by zero, or overflow"); }
EXPORT void __ubsan_handle_add_overflow(Place *p) { emu::fail_at(where(p), "signed integer overflow in +"); }
EXPORT void __ubsan_handle_sub_overflow(Place *p) { emu::fail_at(where(p), "signed integer overflow in -"); }
EXPORT void __ubsan_handle_mul_overflow(Place *p) { emu::fail_at(where(p), "signed integer overflow in *"); }
EXPORT void __ubsan_handle_negate_overflow(Place *p) { emu::fail_at(where(p), "signed integer overflow in unary -"); }
