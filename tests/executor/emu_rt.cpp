/* emu_rt.cpp - fibers, schedules, barriers, warp rendezvous, guard pages, reports.

Blocks run one after another in one OS thread, those of a cluster together. A fiber that must wait switches straight to the
next ready one, and which that is, is the schedule: forward and reverse in the order of threads (and of blocks), random, or
skewed: warps have priorities drawn per block or cluster and the first one that can run does, so that one warp runs as far ahead
as barriers let it. */
#include "emu_rt.h"
#include <algorithm>
#include <csetjmp>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <link.h>
#include <numeric>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <ucontext.h>

uint3 threadIdx, blockIdx, blockDim, gridDim;

namespace emu {

Fiber fibers[MAX_THREADS];
int current, threads;
const Launch *launch;
char *arenas[MAX_CLUSTER], *arena, *statics;
size_t statics_bytes;

// ----------------------------------------------------------------------------------------------- switching stacks
// Neither a power of two apart nor begun at the same place in their pages, the hot ends of stacks spread over the cache.
const size_t PAGE = 4096, STACK = (128 << 10) + PAGE, GUARD = 16 << 20;
static char *stacks;                                 // MAX_THREADS of them, the lowest page of each left inaccessible
static char *stack_top(unsigned t) { return stacks + (t + 1) * STACK - t % 32 * 128; }
static void run_thread();

#if defined(__x86_64__) && !defined(EMU_UCONTEXT)
struct Context { void *sp; };
extern "C" void emu_switch(void **save, void *load);
asm(".text\n.globl emu_switch\n.type emu_switch, @function\nemu_switch:\n"
    "push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"     // what the System V ABI preserves
    "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
    "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n"
    ".size emu_switch, .-emu_switch\n");
static void prepare(Context &c, unsigned t)
{
    void **top = (void **)stack_top(t) - 2;          // at the entry of a function, sp is 8 past a multiple of 16
    *top = (void *)run_thread;
    c.sp = top - 6;
}
static void switch_context(Context &from, Context &to) { emu_switch(&from.sp, to.sp); }
#else                                                // portable; a system call per switch, five times slower in all
struct Context { ucontext_t u; };
static void prepare(Context &c, unsigned t)
{
    getcontext(&c.u);
    c.u.uc_stack.ss_sp = stacks + t * STACK + PAGE, c.u.uc_stack.ss_size = STACK - PAGE;
    makecontext(&c.u, run_thread, 0);
}
static void switch_context(Context &from, Context &to) { swapcontext(&from.u, &to.u); }
#endif

static Context contexts[MAX_THREADS], home;
static sigjmp_buf escape;                            // where every error ends; fibers in flight are simply abandoned

// ------------------------------------------------------------------------------------------------------- messages
const char *place(uint64_t where)
{
    static char text[4][160];
    static int turn;
    char *out = text[turn = (turn + 1) % 4];
    const char *file = (const char *)(where & 0xffffffffffff);
    Dl_info kernel;
    dladdr((void *)launch->call, &kernel);
    if (where >> 48) snprintf(out, 160, "%s:%d", basename(file), (int)(where >> 48));
    else snprintf(out, 160, "<pc +%lx>", (unsigned long)(file - (const char *)kernel.dli_fbase));
    return out;
}

[[noreturn]] static void fail_with(uint64_t where, const char *format, va_list arguments)
{
    int n = snprintf(launch->message, launch->message_size, "%s: %s, block (%u,%u,%u), thread %d: ", place(where),
                     launch->name, blockIdx.x, blockIdx.y, blockIdx.z, threadIdx.x);
    vsnprintf(launch->message + n, launch->message_size - n, format, arguments);
    siglongjmp(escape, 1);
}
void fail_at(uint64_t where, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fail_with(where, format, arguments);
}
void fail(Site here, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fail_with(where_of(here), format, arguments);
}

[[noreturn]] static void deadlock()
{
    const char *states[] = {"is ready", "waits", "waits", "waits", "waits", "waits", "has finished"};
    char text[2048];
    int n = 0;
    auto same = [](const Fiber &a, const Fiber &b) {
        return a.state == b.state && (a.state == FINISHED || (a.doing == b.doing && a.here.line == b.here.line));
    };
    for (int first = 0, last; first < threads && n < 1800; first = last + 1) {
        int rank = rank_of(first), begin = first_of(rank);
        for (last = first; last + 1 < first_of(rank + 1) && same(fibers[first], fibers[last + 1]);) last++;
        const Fiber &f = fibers[first];
        n += snprintf(text + n, 200, "; thread %d..%d", first - begin, last - begin);
        if (launch->cluster > 1) n += snprintf(text + n, 200, " of block %d", rank);
        n += snprintf(text + n, 200, " %s", states[f.state]);
        if (f.state != FINISHED) n += snprintf(text + n, 200, " in %s at %s", f.doing, place(where_of(f.here)));
    }
    fail(fibers[current].here, "deadlock, nothing can run%s", text);
}

// ------------------------------------------------------------------------------------------------------- schedules
static uint32_t ready[MAX_THREADS / 32], alive, alive_in[MAX_CLUSTER];
static int priority[MAX_THREADS / 32], warps;
static uint64_t dice;
unsigned roll() { dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17; return dice >> 16; }

static int choose()                                  // the next thread to run, -1 if none can
{
    int here = current / 32, lane = current % 32;
    uint32_t upto = (2ull << lane) - 1, below = (1u << lane) - 1;
    auto lowest = [](int w, uint32_t bits) { return 32 * w + __builtin_ctz(bits); };
    auto highest = [](int w, uint32_t bits) { return 32 * w + 31 - __builtin_clz(bits); };
    if (launch->schedule == FORWARD) {
        if (ready[here] & ~upto) return lowest(here, ready[here] & ~upto);
        for (int k = 1; k < warps; k++) if (int w = (here + k) % warps; ready[w]) return lowest(w, ready[w]);
        return ready[here] ? lowest(here, ready[here]) : -1;
    }
    if (launch->schedule == REVERSE) {
        if (ready[here] & below) return highest(here, ready[here] & below);
        for (int k = 1; k < warps; k++) if (int w = (here + warps - k) % warps; ready[w]) return highest(w, ready[w]);
        return ready[here] ? highest(here, ready[here]) : -1;
    }
    for (int k = 0, first = launch->schedule == RANDOM ? roll() % warps : 0; k < warps; k++) {
        int w = launch->schedule == RANDOM ? first + k - (first + k < warps ? 0 : warps) : priority[k];
        if (!ready[w]) continue;
        int turn = launch->schedule == RANDOM ? roll() % 32 : w == here ? lane + 1 : 0;
        uint32_t later = ready[w] & ~(uint32_t)((1ull << turn) - 1);
        return lowest(w, later ? later : ready[w]);
    }
    return -1;
}

static uint3 first_block;                            // of the cluster
static void take(int next)                           // what built-in variables say is the next thread's
{
    current = next;
    int rank = rank_of(next);
    threadIdx.x = next - first_of(rank), blockIdx.x = first_block.x + rank, arena = arenas[rank];
}
static void next_turn()
{
    int next;
    while ((next = choose()) < 0) if (!ptx_finish_a_copy()) deadlock();
    if (next == current) return;
    Context &mine = contexts[current];
    take(next);
    switch_context(mine, contexts[next]);
}

Fiber &enter(const char *doing, Site here)
{
    Fiber &f = fibers[current];
    f.doing = doing, f.here = here;
    return f;
}
void wait_as(State state)
{
    fibers[current].state = state;
    ready[current / 32] &= ~(1u << current % 32);
    next_turn();
}
bool has_left(int rank) { return !alive_in[rank]; }
bool in_arena(const char *p, int rank) { return p >= arenas[rank] && p < arenas[rank] + (256 << 10); }
const char *who(int fiber)
{
    static char text[2][40];
    static int turn;
    char *out = text[turn ^= 1];
    int n = snprintf(out, 40, "thread %d", fiber - first_of(rank_of(fiber)));
    if (launch->cluster > 1) snprintf(out + n, 40 - n, " of block %d", rank_of(fiber));
    return out;
}
bool on_stack(const char *p) { return p >= stacks && p < stacks + MAX_THREADS * STACK; }
void wake(int thread)
{
    fibers[thread].state = READY;
    ready[thread / 32] |= 1u << thread % 32;
}
void offer_turn() { if (launch->schedule >= RANDOM) next_turn(); }

// -------------------------------------------------------------------------------------------------- block barriers
struct Barrier { unsigned arrived, threads; int holds, result; Site here; const char *doing; race::Clock clock; };
static Barrier barriers[MAX_CLUSTER][16], whole_cluster;                 // 0 is __syncthreads, 1..15 are the named ones

static int meet(const char *doing, int number, unsigned threads, bool wait, int holds, Site here)
{
    Fiber &f = enter(doing, here);
    int rank = rank_of(current);
    Barrier &b = barriers[rank][number];
    if (number == 0 && alive_in[rank] < launch->block)
        fail(here, "%s after %u threads of the block have returned", doing, launch->block - alive_in[rank]);
    if (b.arrived && number == 0 && (b.here.line != here.line || b.doing != doing))
        fail(here, "divergent barrier: here in %s, others in %s at %s", doing, b.doing, place(where_of(b.here)));
    if (b.arrived && b.threads != threads)
        fail(here, "%s: barrier %d is awaited by %u threads here, by %u at %s", doing, number, threads, b.threads,
             place(where_of(b.here)));
    if (!b.arrived) b.threads = threads, b.here = here, b.doing = doing, b.holds = 0;
    b.holds += holds != 0;
    f.barrier = number;
    if (launch->race && number) race::release(b.clock, current);
    if (++b.arrived < threads) {
        if (wait) wait_as(AT_BARRIER);
        else offer_turn();
        if (wait && launch->race && number) race::acquire(b.clock, current);
        return b.result;
    }
    b.arrived = 0;
    b.result = b.holds;
    if (launch->race && !number) race::block_meets(rank);
    if (launch->race && number) race::acquire(b.clock, current);
    for (int t = first_of(rank); t < first_of(rank + 1); t++)
        if (fibers[t].state == AT_BARRIER && fibers[t].barrier == number) wake(t);
    next_turn();
    return b.result;
}
void cluster_sync(Site here)
{
    enter("cluster_sync", here);
    Barrier &b = whole_cluster;
    if (alive < (unsigned)threads) fail(here, "cluster_sync after %u threads of the cluster have returned", threads - alive);
    if (b.arrived && b.here.line != here.line)
        fail(here, "divergent barrier: here in cluster_sync, others in another at %s", place(where_of(b.here)));
    b.here = here;
    if (++b.arrived < (unsigned)threads) return wait_as(AT_CLUSTER);
    b.arrived = 0;
    if (launch->race) race::all_meet();
    for (int t = 0; t < threads; t++) if (fibers[t].state == AT_CLUSTER) wake(t);
    next_turn();
}
unsigned cluster_rank() { return rank_of(current); }
int vote(const char *doing, int predicate, Site here) { return meet(doing, 0, launch->block, true, predicate, here); }
void arrive(const char *doing, int number, unsigned threads, bool wait, Site here)
{
    if (number < 1 || number > 15 || threads % 32 || !threads || threads > launch->block)
        fail(here, "%s: barrier %d of %u threads, expected a number 1..15 and whole warps of the block", doing, number,
             threads);
    meet(doing, number, threads, wait, 0, here);
}

// ------------------------------------------------------------------------------------------------- warp rendezvous
static uint32_t waiting[MAX_THREADS / 32], finished[MAX_THREADS / 32];

void warp(unsigned mask, const char *doing, void *mine, Collective compute, Site here)
{
    Fiber &f = enter(doing, here);
    int w = current / 32, first = current & ~31, lane = current % 32;
    if (!(mask >> lane & 1)) fail(here, "%s: lane %d is not in its own mask %08x", doing, lane, mask);
    if (mask & finished[w]) fail(here, "%s waits for lanes %08x, which have returned", doing, mask & finished[w]);
    f.mask = mask, f.mine = mine, f.compute = compute;
    for (uint32_t others = waiting[w] & mask; others; others &= others - 1) {
        const Fiber &o = fibers[first + __builtin_ctz(others)];
        if (o.mask != mask || o.doing != doing || o.here.line != here.line)
            fail(here, "divergent warp: here in %s with mask %08x, lane %d in %s with mask %08x at %s", doing, mask,
                 __builtin_ctz(others), o.doing, o.mask, place(where_of(o.here)));
        if ((waiting[w] & mask) != (mask & ~(1u << lane))) break;       // one comparison will do until all are there
    }
    waiting[w] |= 1u << lane;
    if ((waiting[w] & mask) != mask) return wait_as(AT_WARP);

    void *lanes[32] = {};
    for (int k = 0; k < 32; k++) if (mask >> k & 1) lanes[k] = fibers[first + k].mine;
    if (compute) compute(lanes, mask);
    else if (launch->race) race::warp_meets(first, mask);               // __syncwarp alone orders memory
    waiting[w] &= ~mask;
    for (int k = 0; k < 32; k++) if (mask >> k & 1) wake(first + k);
    next_turn();
}

// ------------------------------------------------------------------------------------------------------- one block
static void **values;                                // the kernel's arguments

static void run_thread()
{
    launch->call(values);
    ptx_end_thread();
    Fiber &f = fibers[current];
    int w = current / 32, lane = current % 32;
    int rank = rank_of(current);
    if (const Barrier &b = barriers[rank][0]; b.arrived)
        fail(b.here, "%s waits for the whole block, but this thread has returned", b.doing);
    if (whole_cluster.arrived)
        fail(whole_cluster.here, "cluster_sync waits for the whole cluster, but this thread has returned");
    for (uint32_t others = waiting[w]; others; others &= others - 1)
        if (const Fiber &o = fibers[(current & ~31) + __builtin_ctz(others)]; o.mask >> lane & 1)
            fail(o.here, "%s waits for lanes %08x, but lane %d has returned", o.doing, o.mask, lane);
    f.state = FINISHED;
    finished[w] |= 1u << lane;
    ready[w] &= ~(1u << lane);
    alive_in[rank]--;
    if (launch->race && has_left(rank)) race::leave(rank);
    if (--alive) next_turn();
    else switch_context(contexts[current], home);
    __builtin_unreachable();
}

static void run_cluster(unsigned first)              // number of its first block
{
    const Launch &l = *launch;
    first_block = blockIdx = {first % l.grid[0], first / l.grid[0] % l.grid[1], first / l.grid[0] / l.grid[1]};
    memset(statics, 0xff, statics_bytes);            // NaN as float, -1 as int
    for (unsigned rank = 0; rank < l.cluster; rank++) memset(arenas[rank], 0xff, l.shared), alive_in[rank] = l.block;
    for (int t = 0; t < threads; t++) {
        Fiber &f = fibers[t];
        f.state = READY, f.doing = "the kernel", f.here = {"", 0};
        f.copies.clear(), f.group = 0, f.products = 0, f.products_hash = 0, f.fenced = false;
        f.registers = registers_at_launch();
        prepare(contexts[t], t);
    }
    for (int w = 0; w < warps; w++) {
        int lanes = std::min(32, threads - 32 * w);
        ready[w] = lanes == 32 ? ~0u : (1u << lanes) - 1;
        finished[w] = ~ready[w], waiting[w] = 0;     // lanes that do not exist count as finished
        priority[w] = w;
    }
    for (int w = warps - 1; w > 0; w--) std::swap(priority[w], priority[roll() % (w + 1)]);
    for (auto &of_block : barriers) for (Barrier &b : of_block) b.arrived = 0, b.clock.clear();
    whole_cluster.arrived = 0, alive = threads;
    ptx_start_block();
    if (l.race) race::start_block();
    current = l.schedule == REVERSE ? 0 : threads - 1;
    take(choose());
    switch_context(home, contexts[current]);
    ptx_end_block();
    if (l.race) race::end_block();
}

// ------------------------------------------------------------------------------------------- guarded global memory
// Arrays end at a guard area, or begin after one in the reverse schedule. Their start keeps its place modulo 16 (`skew`,
// 0 but for views), which vector loads notice; the few bytes left over are ones, and are looked at afterwards.
static char *reserve(size_t usable, size_t &mapped)
{
    mapped = usable + 2 * GUARD;
    char *p = (char *)mmap(0, mapped, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? nullptr : p;
}
static bool map_buffer(Buffer &b)
{
    size_t whole = (b.skew + b.bytes + PAGE - 1) / PAGE * PAGE, slack = whole - (b.skew + b.bytes + 15) / 16 * 16;
    b.mapping = reserve(whole, b.mapped);
    if (!b.mapping) return false;
    char *usable = b.mapping + GUARD;
    mprotect(usable, whole, PROT_READ | PROT_WRITE);
    b.device = usable + b.skew + (launch->schedule == REVERSE ? 0 : slack);
    memset(usable, 0xff, b.device - usable);
    memcpy(b.device, b.host, b.bytes);
    memset(b.device + b.bytes, 0xff, usable + whole - b.device - b.bytes);
    if (!b.writable) mprotect(usable, whole, PROT_READ);
    return true;
}
static void unmap_buffer(Buffer &b, bool copy_back)
{
    if (!b.mapping) return;
    char *usable = b.mapping + GUARD, *end = b.mapping + b.mapped - GUARD;
    auto written = [](char *from, char *to) { return std::any_of(from, to, [](char c) { return c != (char)0xff; }); };
    if (copy_back && (written(usable, b.device) || written(b.device + b.bytes, end)) && !*launch->message)
        snprintf(launch->message, launch->message_size, "%s: wrote outside '%s', within a page of it; the race build "
                 "names the line", launch->name, b.name);
    if (copy_back && b.writable) memcpy(b.host, b.device, b.bytes);
    munmap(b.mapping, b.mapped);
}

// ----------------------------------------------------------------------------------------------- signals of a launch
static const int SIGNALS[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGVTALRM};
const int N_SIGNALS = 5;
static struct sigaction before[N_SIGNALS];
static pthread_t owner;

static void on_signal(int signal, siginfo_t *info, void *context)
{
    if (!pthread_equal(pthread_self(), owner)) {     // another thread's own fault, or the timer: pass it on
        if (signal == SIGVTALRM) pthread_kill(owner, signal);
        else ::signal(signal, SIG_DFL);
        return;
    }
    uint64_t pc = 0;
    const char *access = "access";
#if defined(__x86_64__)
    const greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    pc = registers[REG_RIP];
    access = registers[REG_ERR] & 2 ? "write" : "read";
#elif defined(__aarch64__)
    pc = ((ucontext_t *)context)->uc_mcontext.pc;
#endif
    Dl_info kernel, here;
    dladdr((void *)launch->call, &kernel);
    bool in_kernel = dladdr((void *)pc, &here) && here.dli_fbase == kernel.dli_fbase;
    uint64_t where = in_kernel ? pc : where_of(fibers[current].here);
    const char *p = (const char *)info->si_addr;
    if (signal == SIGVTALRM)
        fail_at(where, "still running after %g s (a wait must be a primitive, not a loop)", launch->seconds);
    if (signal == SIGFPE) fail_at(where, "integer division by zero");
    if (signal == SIGILL) fail_at(where, "undefined behaviour, which g++ made a trap");
    for (int k = 0; k < launch->n_buffers; k++) {
        const Buffer &b = launch->buffers[k];
        if (!b.mapping || p < b.mapping || p >= b.mapping + b.mapped) continue;
        if (p >= b.device && p < b.device + b.bytes) fail_at(where, "%s to '%s', which is const", access, b.name);
        fail_at(where, "%s outside '%s': byte offset %ld of %zu", access, b.name, (long)(p - b.device), b.bytes);
    }
    if (on_stack(p)) fail_at(where, "more than %zu KiB of local variables", (STACK - PAGE) >> 10);
    if (p >= arena - GUARD && p < arena + MAX_SHARED + GUARD)
        fail_at(where, "%s outside dynamic shared memory: byte offset %ld of %u", access, (long)(p - arena),
                launch->shared);
    fail_at(where, p && info->si_code != SI_KERNEL ? "%s of address %p, outside every array" :
            "%s that is misaligned for its vector type, or of address %p", access, (void *)p);
}
static void take_signals()
{
    static char stack[64 << 10];
    static stack_t alternate = {stack, 0, sizeof stack};
    sigaltstack(&alternate, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    for (int k = 0; k < N_SIGNALS; k++) sigaction(SIGNALS[k], &action, &before[k]);
}
static void set_timer(double seconds)
{
    itimerval timer = {{1, 0}, {(long)seconds, (long)(1e6 * (seconds - (long)seconds))}};
    if (seconds == 0) timer.it_interval.tv_sec = 0;
    setitimer(ITIMER_VIRTUAL, &timer, nullptr);
}

static int find_statics(dl_phdr_info *info, size_t, void *kernel_base)
{
    if ((void *)info->dlpi_addr != kernel_base) return 0;
    for (int k = 0; k < info->dlpi_phnum; k++)
        if (info->dlpi_phdr[k].p_type == PT_TLS)
            statics = (char *)info->dlpi_tls_data, statics_bytes = info->dlpi_phdr[k].p_memsz;
    return 1;
}

static void run_blocks()
{
    unsigned total = launch->grid[0] * launch->grid[1] * launch->grid[2] / launch->cluster;
    std::vector<unsigned> order(total);
    std::iota(order.begin(), order.end(), 0);
    if (launch->schedule == REVERSE) std::reverse(order.begin(), order.end());
    for (unsigned k = total - 1; launch->schedule >= RANDOM && k > 0; k--) std::swap(order[k], order[roll() % (k + 1)]);
    for (unsigned number : order) run_cluster(number * launch->cluster);
}

unsigned char *dynamic_shared() { return (unsigned char *)arena; }
unsigned shared_address(const void *p, Site here)
{
    ptrdiff_t offset = (const char *)p - arena;
    if (offset < 0 || offset > (ptrdiff_t)launch->shared)
        fail(here, "an address outside dynamic shared memory, where descriptors, mbarriers and TMA are not emulated");
    return offset;
}

}

extern "C" __attribute__((visibility("default"))) int emu_launch(emu::Launch *l)
{
    using namespace emu;
    static char *arena_ends[MAX_CLUSTER];
    bool whole = l->grid[0] % l->cluster == 0 && l->block % 128 == 0;
    if (l->cluster > 1 && !(whole && l->cluster <= MAX_CLUSTER && l->cluster * l->block <= MAX_THREADS)) {
        snprintf(l->message, l->message_size, "%s: expected a grid of whole clusters of %u blocks, these of whole warpgroups "
                 "and at most %d threads in all, got %u blocks of %u", l->name, l->cluster, MAX_THREADS, l->grid[0], l->block);
        return 1;
    }
    if (!stacks) {
        size_t mapped;
        stacks = reserve(MAX_THREADS * STACK, mapped) + GUARD;
        for (int t = 0; t < MAX_THREADS; t++) mprotect(stacks + t * STACK + PAGE, STACK - PAGE, PROT_READ | PROT_WRITE);
        for (char *&end : arena_ends) {
            char *guarded = reserve(256 << 10, mapped);
            mprotect(guarded + GUARD, 256 << 10, PROT_READ | PROT_WRITE);
            end = guarded + GUARD + (256 << 10);
        }
    }
    launch = l;
    owner = pthread_self();
    dice = 0x9e3779b97f4a7c15 ^ (uint64_t)(l->seed + 1) * 0xbf58476d1ce4e5b9;
    threads = l->cluster * l->block, warps = (threads + 31) / 32;
    blockDim = {l->block, 1, 1}, gridDim = {l->grid[0], l->grid[1], l->grid[2]}, threadIdx = {0, 0, 0};
    for (unsigned rank = 0; rank < l->cluster; rank++) arenas[rank] = arena_ends[rank] - (l->shared + 1023) / 1024 * 1024;
    arena = arenas[0];
    l->touch();
    Dl_info kernel;
    dladdr((void *)l->call, &kernel);
    dl_iterate_phdr(find_statics, kernel.dli_fbase);

    *l->message = 0;
    bool mapped = true;
    for (int k = 0; k < l->n_buffers && mapped; k++) mapped = map_buffer(l->buffers[k]);
    std::vector<void *> pointers;
    for (int k = 0; k < l->n_values; k++) {
        Value &v = l->values[k];
        if (v.buffer >= 0) *(char **)v.bytes = l->buffers[v.buffer].device + v.offset;
        pointers.push_back(v.bytes);
    }
    values = pointers.data();
    if (l->race) race::start_launch();
    stack_t stack_before;
    sigaltstack(nullptr, &stack_before);
    take_signals();
    volatile bool good = false;
    if (!mapped) snprintf(l->message, l->message_size, "%s: no memory for the arguments", l->name);
    else if (l->cluster > 1 && statics_bytes > 1)    // every kernel has a byte of them, emu_first_touch
        snprintf(l->message, l->message_size, "%s: static shared memory in a cluster is not emulated", l->name);
    else if (!sigsetjmp(escape, 1)) {
        set_timer(l->seconds);
        run_blocks();
        good = true;
    }
    set_timer(0);
    for (int k = 0; k < N_SIGNALS; k++) sigaction(SIGNALS[k], &before[k], nullptr);
    sigaltstack(&stack_before, nullptr);
    if (l->race) race::end_launch();
    for (int k = 0; k < l->n_buffers; k++) unmap_buffer(l->buffers[k], good);
    launch = nullptr;
    return *l->message ? 1 : 0;
}
