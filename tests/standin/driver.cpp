/* driver.cpp - the stand-in for libcuda.so.1 and the CUDA runtime: memory, streams, events, graphs, modules, launches.

Device memory is the host's. A stream is a queue. What is issued on a stream that is late is done when somebody waits for it, on the
others at once: a program whose waits suffice computes the same either way. Which streams are late, and which waits are deaf, as if the
program had left them out, `standin_late` and `standin_deaf` say. Kernels are the affair of kernels.py, by two functions that it gives.

While a stream is captured, what is issued on it becomes an entry of a graph, which holds addresses; that device memory is still there
is looked at when the entry runs. What CUDA refuses during a capture is refused, and ends it (CUDA C++ Programming Guide, CUDA Graphs,
Prohibited and Unhandled Operations). One thread at a time may call. */
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

enum Error {
    OK = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
    LAUNCH_FAILED = 719, NOT_SUPPORTED = 801, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901, CAPTURE_UNJOINED = 904, CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906, CAPTURED_EVENT = 907
};
static const std::map<int, std::pair<const char *, const char *>> ERRORS = {
    {OK, {"cudaSuccess", "no error"}}, {INVALID_VALUE, {"cudaErrorInvalidValue", "invalid argument"}},
    {OUT_OF_MEMORY, {"cudaErrorMemoryAllocation", "out of memory"}},
    {INVALID_HANDLE, {"cudaErrorInvalidResourceHandle", "invalid resource handle"}},
    {NOT_FOUND, {"cudaErrorSymbolNotFound", "named symbol not found"}}, {NOT_READY, {"cudaErrorNotReady", "device not ready"}},
    {ILLEGAL_ADDRESS, {"cudaErrorIllegalAddress", "an illegal memory access was encountered"}},
    {LAUNCH_FAILED, {"cudaErrorLaunchFailure", "unspecified launch failure"}},
    {NOT_SUPPORTED, {"cudaErrorNotSupported", "operation not supported by the stand-in"}},
    {CAPTURE_UNSUPPORTED, {"cudaErrorStreamCaptureUnsupported", "operation not permitted when stream is capturing"}},
    {CAPTURE_INVALIDATED, {"cudaErrorStreamCaptureInvalidated", "operation failed due to a previous error during capture"}},
    {CAPTURE_UNJOINED, {"cudaErrorStreamCaptureUnjoined", "capturing stream has unjoined work"}},
    {CAPTURE_ISOLATION, {"cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work in another stream"}},
    {CAPTURE_IMPLICIT, {"cudaErrorStreamCaptureImplicit", "operation would make the legacy stream depend on a capturing blocking stream"}},
    {CAPTURED_EVENT, {"cudaErrorCapturedEvent", "operation not permitted on an event last recorded in a capturing stream"}},
};

// ------------------------------------------------------------------------------------------------------------- memory
static const size_t TOTAL = 2ull << 30;                           // not an H200's 141 GB: the host's memory is used for it
static std::map<char *, size_t> device, pinned;
static size_t live, most = TOTAL;

static bool inside(const std::map<char *, size_t> &memory, const void *p, size_t n = 1)
{
    auto next = memory.upper_bound((char *)p);
    if (next == memory.begin()) return false;
    auto &[start, bytes] = *--next;
    return (char *)p + n <= start + bytes;
}

// ------------------------------------------------------------------------------------------------------------ streams
typedef std::function<int()> Work;
struct Stream;
struct Entry { Work work; std::vector<void *> touched; };        // device addresses that must still be there when it runs
struct Graph { std::vector<Entry> entries; };
struct Stream {
    bool blocking; std::deque<Entry> queue; long issued = 0, done = 0; std::shared_ptr<Graph> capture; bool spoiled = false, dropped = false;
    long recorded = 0, joined = 0;                                // entries of this stream in the capture, and how many another one waits for
};
struct Event { Stream *stream = nullptr; long place = 0, recorded = 0; bool captured = false; std::chrono::steady_clock::time_point when; };
enum { LEGACY = 1, OTHERS = 2 };                                  // of standin_late
enum { LEGACY_WAITS_EVENT = 1, OTHER_WAITS_EVENT = 2, EVENT_SYNCHRONIZE = 4, OTHER_SYNCHRONIZE = 8 };      // of standin_deaf

static Stream legacy{true};
static std::map<Stream *, std::unique_ptr<Stream>> others;
static std::map<Event *, std::unique_ptr<Event>> events;
static int late, deaf, fault, graphs_live;
static std::string message;                                       // of the kernel that failed
static long launches, graph_launches;

static Stream *stream_of(void *handle) { return (uintptr_t)handle <= 2 ? &legacy : (Stream *)handle; }
static bool known(Stream *s) { return s == &legacy || others.count(s); }
static bool recording() { for (auto &[s, own] : others) if (s->capture) return true; return false; }

static void reach(Stream &s, long until)
{
    while (s.done < until) {
        Entry entry = std::move(s.queue.front());
        s.queue.pop_front();
        s.done++;
        for (void *p : entry.touched) if (!inside(device, p)) fault = ILLEGAL_ADDRESS;
        if (!fault) fault = entry.work();
    }
}
static int outcome() { int now = fault; fault = OK; return now; }

// The legacy stream and the blocking ones wait for each other.
static void after(Stream &s, Stream &other)
{
    long place = other.issued;
    if (other.done < place) s.queue.push_back({[&other, place] { if (known(&other)) reach(other, place); return OK; }, {}}), s.issued++;
}
static int issue(void *handle, Work work, std::vector<void *> touched = {})
{
    Stream *s = stream_of(handle);
    if (!known(s)) return INVALID_HANDLE;
    if (s->spoiled) return CAPTURE_INVALIDATED;
    if (s->capture) return s->capture->entries.push_back({work, touched}), s->recorded++, OK;
    if (s == &legacy) {
        for (auto &[other, own] : others) if (other->blocking) {
            if (other->capture) return other->spoiled = true, CAPTURE_IMPLICIT;
            after(*s, *other);
        }
    } else if (s->blocking) after(*s, legacy);
    s->queue.push_back({work, touched});
    s->issued++;
    if (!(late & (s == &legacy ? LEGACY : OTHERS))) reach(*s, s->issued);
    return outcome();
}
static int synchronize(Stream &s)
{
    if (s.capture) return s.spoiled = true, CAPTURE_UNSUPPORTED;
    if (&s == &legacy) for (auto &[other, own] : others) if (other->blocking) {
        if (other->capture) return other->spoiled = true, CAPTURE_IMPLICIT;
        reach(*other, other->issued);
    }
    if (&s != &legacy && s.blocking) reach(legacy, legacy.issued);
    reach(s, s.issued);
    return outcome();
}
static int synchronize_all()
{
    for (auto &[s, own] : others) if (s->capture) return s->spoiled = true, CAPTURE_UNSUPPORTED;
    reach(legacy, legacy.issued);
    for (auto &[s, own] : others) reach(*s, s->issued);
    for (auto it = others.begin(); it != others.end();) {
        for (auto &[event, own] : events) if (it->second->dropped && event->stream == it->first) event->stream = nullptr;
        it = it->second->dropped ? others.erase(it) : std::next(it);
    }
    return outcome();
}

// --------------------------------------------------------------------------------------------------- for the fixture
typedef int (*Get)(const char *image, const char *name, int *sizes);                 // number of the kernel, -1 if there is none
typedef int (*Run)(int kernel, const unsigned *grid, unsigned block, unsigned shared, void **values, char *message, int room);
static Get get;
static Run run;
EXPORT void standin_kernels(Get g, Run r) { get = g, run = r; }
EXPORT void standin_late(int streams) { late = streams; }
EXPORT void standin_deaf(int waits) { deaf = waits; }
EXPORT void standin_memory(size_t bytes) { most = bytes ? bytes : TOTAL; }            // what the device has from now on
EXPORT size_t standin_live() { return live; }
EXPORT int standin_graphs() { return graphs_live; }
EXPORT long standin_launches() { return launches; }
EXPORT long standin_graph_launches() { return graph_launches; }
EXPORT long standin_issued() { return legacy.issued; }              // of the legacy stream's work, in all
EXPORT long standin_done() { return legacy.done; }

// -------------------------------------------------------------------------------------------------------- the runtime
EXPORT const char *cudaGetErrorName(int e) { return ERRORS.count(e) ? ERRORS.at(e).first : "cudaErrorUnknown"; }
EXPORT const char *cudaGetErrorString(int e)
{
    if (e == LAUNCH_FAILED && !message.empty()) return message.c_str();
    return ERRORS.count(e) ? ERRORS.at(e).second : "unknown error";
}
EXPORT int cudaGetLastError() { return OK; }
EXPORT int cudaDriverGetVersion(int *v) { return *v = STANDIN_CUDA, OK; }
EXPORT int cudaRuntimeGetVersion(int *v) { return *v = STANDIN_CUDA, OK; }
EXPORT int cudaGetDevice(int *d) { return *d = 0, OK; }
EXPORT int cudaSetDevice(int d) { return d ? 101 : OK; }
EXPORT int cudaGetDeviceCount(int *n) { return *n = 1, OK; }
EXPORT int cudaDeviceGetPCIBusId(char *id, int room, int) { return snprintf(id, room, "0000:00:00.0"), OK; }
EXPORT int cudaDeviceGetAttribute(int *value, int attribute, int)                     // numbers of enum cudaDeviceAttr
{
    static const std::map<int, int> H200 = {{1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 0x7fffffff}, {6, 65535}, {7, 65535}, {8, 48 << 10},
        {10, 32}, {12, 1 << 16}, {13, 1980000}, {16, 132}, {31, 1}, {36, 3201000}, {37, 6144}, {38, 50 << 20}, {39, 2048}, {40, 3},
        {41, 1}, {75, 9}, {76, 0}, {81, 228 << 10}, {82, 1 << 16}, {97, 227 << 10}};
    *value = H200.count(attribute) ? H200.at(attribute) : 0;
    return OK;
}
EXPORT int cudaDeviceSynchronize() { return synchronize_all(); }

EXPORT int cudaMalloc(void **p, size_t n)
{
    *p = nullptr;
    if (live + n > most || posix_memalign(p, 512, n ? n : 1)) return OUT_OF_MEMORY;
    memset(*p, 0xff, n);                                          // NaN, or -1
    device[(char *)*p] = n;
    live += n;
    return OK;
}
EXPORT int cudaFree(void *p)
{
    if (!p) return OK;
    auto it = device.find((char *)p);
    if (it == device.end()) return INVALID_VALUE;
    if (!recording()) synchronize_all();                          // as CUDA does
    live -= it->second;
    memset(p, 0xee, it->second);
    device.erase(it);
    free(p);
    return OK;
}
EXPORT int cudaHostAlloc(void **p, size_t n, unsigned)
{
    if (posix_memalign(p, 4096, n ? n : 1)) return OUT_OF_MEMORY;
    memset(*p, 0xee, n);
    pinned[(char *)*p] = n;
    return OK;
}
EXPORT int cudaFreeHost(void *p)
{
    if (!pinned.erase((char *)p)) return INVALID_VALUE;
    if (!recording()) synchronize_all();
    free(p);
    return OK;
}
EXPORT int cudaMemGetInfo(size_t *available, size_t *total) { return *available = most - live, *total = most, OK; }
EXPORT int cudaPointerGetAttributes(int *type, const void *p)     // the struct begins with type and device
{
    struct { int type, device; const void *there, *here; } a = {inside(device, p) ? 2 : inside(pinned, p) ? 1 : 0, 0, p, p};
    return memcpy(type, &a, sizeof a), OK;
}

static Work copy(void *dst, const void *src, size_t n) { return [=] { memmove(dst, src, n); return OK; }; }

EXPORT int cudaMemcpyAsync(void *dst, const void *src, size_t n, int, void *stream)
{
    Stream *s = stream_of(stream);
    if (!known(s)) return INVALID_HANDLE;
    bool from = inside(device, src, n), to = inside(device, dst, n);
    if (!n) return OK;
    if (from && to) return issue(stream, copy(dst, src, n), {dst, (void *)src});
    if (!from && !to) return INVALID_VALUE;
    bool locked = inside(pinned, to ? src : dst, n);
    if (s->capture && !locked) return s->spoiled = true, CAPTURE_UNSUPPORTED;
    if (locked) return issue(stream, copy(dst, src, n), {to ? dst : (void *)src});
    if (to) {                                                     // pageable memory is read before the call returns
        auto bytes = std::make_shared<std::string>((const char *)src, n);
        return issue(stream, [=] { memcpy(dst, bytes->data(), n); return OK; }, {dst});
    }
    int status = issue(stream, copy(dst, src, n), {(void *)src});
    return status ? status : synchronize(*s);                     // and written before it does
}
EXPORT int cudaMemcpy(void *dst, const void *src, size_t n, int kind)
{
    int status = cudaMemcpyAsync(dst, src, n, kind, nullptr);
    return status ? status : synchronize(legacy);
}
EXPORT int cudaMemsetAsync(void *p, int value, size_t n, void *stream)
{
    if (n && !inside(device, p, n)) return INVALID_VALUE;
    return issue(stream, [=] { memset(p, value, n); return OK; }, n ? std::vector<void *>{p} : std::vector<void *>{});
}
EXPORT int cudaMemset(void *p, int value, size_t n) { return cudaMemsetAsync(p, value, n, nullptr); }

EXPORT int cudaStreamCreateWithFlags(Stream **s, unsigned flags)
{
    auto own = std::make_unique<Stream>();
    *s = own.get(), own->blocking = !(flags & 1);
    others[*s] = std::move(own);
    return OK;
}
EXPORT int cudaStreamCreate(Stream **s) { return cudaStreamCreateWithFlags(s, 0); }
EXPORT int cudaStreamCreateWithPriority(Stream **s, unsigned flags, int) { return cudaStreamCreateWithFlags(s, flags); }
EXPORT int cudaStreamDestroy(Stream *s)
{
    if (!others.count(s)) return INVALID_HANDLE;
    return s->dropped = true, OK;                                 // what is issued on it is done nevertheless
}
EXPORT int cudaStreamSynchronize(void *handle)
{
    Stream *s = stream_of(handle);
    if (!known(s)) return INVALID_HANDLE;
    return s != &legacy && deaf & OTHER_SYNCHRONIZE ? OK : synchronize(*s);
}
EXPORT int cudaStreamQuery(void *handle)
{
    Stream *s = stream_of(handle);
    if (s->capture) return s->spoiled = true, CAPTURE_UNSUPPORTED;
    return s->done < s->issued ? NOT_READY : OK;
}
EXPORT int cudaStreamWaitEvent(void *handle, Event *event, unsigned)
{
    Stream *s = stream_of(handle), *other = event->stream;
    if (deaf & (s == &legacy ? LEGACY_WAITS_EVENT : OTHER_WAITS_EVENT) || !other) return OK;
    if (event->captured && other->capture) {                      // s joins the capture, or waits within it
        if (s == &legacy) return other->spoiled = true, CAPTURE_IMPLICIT;
        if (!s->capture) s->capture = other->capture, s->recorded = s->joined = 0;
        if (s->capture != other->capture) return s->spoiled = true, CAPTURE_ISOLATION;
        other->joined = std::max(other->joined, event->recorded);
        return OK;
    }
    if (event->captured) return CAPTURED_EVENT;
    if (s->capture) return s->spoiled = true, CAPTURE_ISOLATION;
    long place = event->place;
    return issue(handle, [=] { if (known(other)) reach(*other, place); return OK; });
}
EXPORT int cudaLaunchHostFunc(void *handle, void (*f)(void *), void *data)
{ return issue(handle, [=] { f(data); return OK; }); }
EXPORT int cudaStreamBeginCapture(void *handle, int)
{
    Stream *s = stream_of(handle);
    if (s == &legacy || s->capture) return CAPTURE_UNSUPPORTED;
    s->capture = std::make_shared<Graph>(), s->recorded = s->joined = 0;
    return OK;
}
EXPORT int cudaStreamIsCapturing(void *handle, int *status)
{
    Stream *s = stream_of(handle);
    return *status = s->spoiled ? 2 : s->capture ? 1 : 0, OK;
}
EXPORT int cudaStreamEndCapture(void *handle, Graph **graph)
{
    Stream *s = stream_of(handle);
    *graph = nullptr;
    if (!s->capture) return INVALID_VALUE;
    bool spoiled = s->spoiled, unjoined = false;
    for (auto &[other, own] : others) if (other != s && other->capture == s->capture) {
        spoiled |= other->spoiled, unjoined |= other->joined < other->recorded;
        other->capture = nullptr, other->spoiled = false;
    }
    if (unjoined) return s->capture = nullptr, s->spoiled = false, CAPTURE_UNJOINED;
    if (!spoiled) *graph = new Graph(*s->capture), graphs_live++;
    s->capture = nullptr, s->spoiled = false;
    return spoiled ? CAPTURE_INVALIDATED : OK;
}

EXPORT int cudaEventCreateWithFlags(Event **event, unsigned)
{
    auto own = std::make_unique<Event>();
    *event = own.get();
    events[*event] = std::move(own);
    return OK;
}
EXPORT int cudaEventCreate(Event **event) { return cudaEventCreateWithFlags(event, 0); }
EXPORT int cudaEventDestroy(Event *event) { return events.erase(event) ? OK : INVALID_HANDLE; }
EXPORT int cudaEventRecord(Event *event, void *handle)
{
    Stream *s = stream_of(handle);
    if (!known(s)) return INVALID_HANDLE;
    event->stream = s, event->place = s->issued, event->recorded = s->recorded, event->captured = !!s->capture;
    event->when = std::chrono::steady_clock::now();
    if (s == &legacy) for (auto &[other, own] : others) if (other->blocking && other->done < other->issued)
        return issue(handle, [=] { return OK; }), event->place = s->issued, OK;       // it waits for those as well
    return OK;
}
EXPORT int cudaEventSynchronize(Event *event)
{
    if (event->captured) return CAPTURED_EVENT;
    if (event->stream && !(deaf & EVENT_SYNCHRONIZE)) reach(*event->stream, event->place);
    return outcome();
}
EXPORT int cudaEventQuery(Event *event)
{
    if (event->captured) return CAPTURED_EVENT;
    return event->stream && event->stream->done < event->place ? NOT_READY : OK;
}
EXPORT int cudaEventElapsedTime(float *ms, Event *start, Event *end)
{
    if (cudaEventQuery(start) || cudaEventQuery(end)) return NOT_READY;
    *ms = std::chrono::duration<float, std::milli>(end->when - start->when).count();
    return OK;
}

EXPORT int cudaGraphInstantiate(Graph **exec, Graph *graph, unsigned long long) { return *exec = new Graph(*graph), graphs_live++, OK; }
EXPORT int cudaGraphDestroy(Graph *graph) { return delete graph, graphs_live--, OK; }
EXPORT int cudaGraphExecDestroy(Graph *graph) { if (!recording()) synchronize_all(); return cudaGraphDestroy(graph); }
EXPORT int cudaGraphUpload(Graph *, void *) { return OK; }
EXPORT int cudaGraphLaunch(Graph *graph, void *handle)
{
    graph_launches++;
    if (stream_of(handle)->capture) return NOT_SUPPORTED;
    for (Entry &entry : graph->entries)
        if (int status = issue(handle, entry.work, entry.touched)) return status;
    return OK;
}
EXPORT int cudaProfilerStart() { return OK; }
EXPORT int cudaProfilerStop() { return OK; }

// --------------------------------------------------------------------------------------------------------- the driver
struct Module { std::string image; };
struct Function { int number; std::vector<int> sizes; };
EXPORT int cuGetErrorName(int e, const char **s) { return *s = cudaGetErrorName(e), OK; }
EXPORT int cuGetErrorString(int e, const char **s) { return *s = cudaGetErrorString(e), OK; }
EXPORT int cuCtxGetCurrent(void **c) { return *c = &legacy, OK; }
EXPORT int cuCtxSetCurrent(void *) { return OK; }
EXPORT int cuCtxGetDevice(int *d) { return *d = 0, OK; }
EXPORT int cuStreamGetCtx(void *, void **c) { return *c = &legacy, OK; }
EXPORT int cuGetExportTable(const void **table, const void *) { return *table = nullptr, NOT_FOUND; }   // NVRTC asks for it
EXPORT int cuModuleLoadData(Module **m, const char *image) { return *m = new Module{image}, OK; }
EXPORT int cuModuleLoad(Module **m, const char *path)
{
    FILE *file = fopen(path, "rb");
    if (!file) return 301;
    std::string image;
    for (int c; (c = fgetc(file)) != EOF;) image += (char)c;
    fclose(file);
    return cuModuleLoadData(m, image.c_str());
}
EXPORT int cuModuleUnload(Module *m) { return delete m, OK; }
EXPORT int cuModuleGetFunction(Function **f, Module *m, const char *name)
{
    int sizes[256];
    int number = get(m->image.c_str(), name, sizes);
    if (number < 0) return NOT_FOUND;
    *f = new Function{number, {}};                                // for good, as modules are kept
    for (int *size = sizes; *size; size++) (*f)->sizes.push_back(*size);
    return OK;
}
EXPORT int cuFuncGetAttribute(int *value, int attribute, Function *) { return *value = attribute == 0 ? 1024 : 0, OK; }
EXPORT int cuDeviceGet(int *device, int number) { return *device = number, OK; }
EXPORT int cuDeviceGetUuid_v2(unsigned char *uuid, int)           // with a 0 in front, as one of 256 devices has
{
    for (int k = 0; k < 16; k++) uuid[k] = k;
    return OK;
}
// A tensor map here is the executor's own record (tests/executor/emu_ptx.cpp), of what the kernels use.
struct TensorMap {
    const char *base;
    uint64_t strides[4];
    uint32_t sizes[5];
    uint16_t box[5], steps[5];
    int16_t lower[2], upper[2]; uint16_t pixels, channels;
    uint8_t rank, item, swizzle, im2col;
};
EXPORT int cuTensorMapEncodeTiled(TensorMap *map, int type, unsigned rank, const char *base, const uint64_t *sizes,
                                  const uint64_t *strides, const unsigned *box, const unsigned *steps,
                                  int interleave, int swizzle, int promotion, int fill)
{
    const int items[] = {1, 2, 4};
    if (type > 2 || interleave || fill || (swizzle && swizzle != 3) || promotion > 3) return NOT_SUPPORTED;
    if ((uintptr_t)map % 64 || (uintptr_t)base % 16 || rank < 2 || rank > 5) return INVALID_VALUE;
    if (box[0] * items[type] % 16 || (swizzle && box[0] * items[type] > 128)) return INVALID_VALUE;
    memset((void *)map, 0, 128);
    *map = {base, {}, {}, {}, {}, {}, {}, 0, 0, (uint8_t)rank, (uint8_t)items[type], swizzle == 3, 0};
    for (unsigned k = 0; k < rank; k++) {
        if (!sizes[k] || !box[k] || box[k] > 256 || steps[k] != 1 || (k && strides[k - 1] % 16)) return INVALID_VALUE;
        map->sizes[k] = sizes[k], map->box[k] = box[k], map->steps[k] = 1;
        if (k) map->strides[k - 1] = strides[k - 1];
    }
    return OK;
}
EXPORT int cuFuncSetAttribute(Function *, int, int value) { return 0 <= value && value <= 227 << 10 ? OK : INVALID_VALUE; }
EXPORT int cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                          void *stream, void **parameters, void **)
{
    if (!gx || !gy || !gz || gy > 65535 || gz > 65535 || !bx || bx*by*bz > 1024 || shared > 227 << 10) return INVALID_VALUE;
    if (by > 1 || bz > 1) return NOT_SUPPORTED;                   // as the executor
    auto values = std::make_shared<std::vector<std::vector<char>>>();                 // they are copied now, in CUDA too
    std::vector<void *> touched;
    for (size_t k = 0; k < f->sizes.size(); k++) {
        char *bytes = (char *)parameters[k];
        values->emplace_back(bytes, bytes + f->sizes[k]);
        for (int at = 0; at + 8 <= f->sizes[k]; at += 8) {
            void *p;
            memcpy(&p, bytes + at, 8);
            if (inside(device, p)) touched.push_back(p);
        }
    }
    int number = f->number;
    return issue(stream, [=] {
        const unsigned grid[] = {gx, gy, gz};
        std::vector<void *> pointers;
        for (auto &value : *values) pointers.push_back(value.data());
        char text[2048] = "";
        launches++;
        int failed = run(number, grid, bx, shared, pointers.data(), text, sizeof text);
        return failed ? message = text, LAUNCH_FAILED : OK;
    }, touched);
}
