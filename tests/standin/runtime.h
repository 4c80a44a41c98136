/* runtime.h - what CuPy's module `runtime` is compiled against here: the functions of driver.cpp, and a refusal for all others.

It takes the place of CuPy's header for building its documentation, stub/cupy_cuda_runtime.h, whose types it takes over. STANDIN_PROPERTIES
are the fields of cudaDeviceProp as CuPy's own source declares them. */
#pragma once
#include <cstddef>
#define cudaDeviceProp cudaDevicePropOfTheDocs
#define cudaPointerAttributes cudaPointerAttributesOfTheDocs
#include "cupy_cuda_common.h"
#undef cudaDeviceProp
#undef cudaPointerAttributes

extern "C" {

typedef struct { char bytes[16]; } cudaUUID_t;
typedef struct { STANDIN_PROPERTIES } cudaDeviceProp;
struct cudaPointerAttributes { int type, device; void *devicePointer, *hostPointer; };
enum cudaMemAllocationType {};
enum cudaMemAllocationHandleType {};
enum cudaMemLocationType {};
struct cudaMemLocation { cudaMemLocationType type; int id; };
struct cudaMemPoolProps { cudaMemAllocationType allocType; cudaMemAllocationHandleType handleTypes; cudaMemLocation location; };
enum cudaStreamCaptureMode {};
enum cudaStreamCaptureStatus {};

static bool hip_environment = false;

const char *cudaGetErrorName(cudaError_t);
const char *cudaGetErrorString(cudaError_t);
cudaError_t cudaGetLastError();
cudaError_t cudaDriverGetVersion(int *);
cudaError_t cudaRuntimeGetVersion(int *);
cudaError_t cudaGetDevice(int *);
cudaError_t cudaSetDevice(int);
cudaError_t cudaGetDeviceCount(int *);
cudaError_t cudaDeviceGetAttribute(int *, cudaDeviceAttr, int);
cudaError_t cudaDeviceGetPCIBusId(char *, int, int);
cudaError_t cudaDeviceSynchronize();
cudaError_t cudaMalloc(void **, size_t);
cudaError_t cudaFree(void *);
cudaError_t cudaHostAlloc(void **, size_t, unsigned);
cudaError_t cudaFreeHost(void *);
cudaError_t cudaMemGetInfo(size_t *, size_t *);
cudaError_t cudaMemcpy(void *, const void *, size_t, cudaMemcpyKind);
cudaError_t cudaMemcpyAsync(void *, const void *, size_t, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemset(void *, int, size_t);
cudaError_t cudaMemsetAsync(void *, int, size_t, cudaStream_t);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *, const void *);
cudaError_t cudaStreamCreate(cudaStream_t *);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, unsigned);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *, unsigned, int);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamQuery(cudaStream_t);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned);
cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t, void *);
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *);
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus *);
cudaError_t cudaEventCreate(cudaEvent_t *);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *, unsigned);
cudaError_t cudaEventDestroy(cudaEvent_t);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaEventQuery(cudaEvent_t);
cudaError_t cudaEventElapsedTime(float *, cudaEvent_t, cudaEvent_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *, cudaGraph_t, unsigned long long);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t);

// Here, where the fields are known; an H200 by its data sheet.
static inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int)
{
    *p = cudaDeviceProp{};
    __builtin_strcpy(p->name, "stand-in for an NVIDIA H200, on the CPU");
    size_t free;
    cudaMemGetInfo(&free, &p->totalGlobalMem);
    p->major = 9, p->warpSize = 32, p->multiProcessorCount = 132, p->l2CacheSize = 50 << 20;
    p->maxThreadsPerBlock = 1024, p->maxThreadsPerMultiProcessor = 2048;
    p->sharedMemPerBlock = 48 << 10, p->sharedMemPerBlockOptin = 227 << 10, p->sharedMemPerMultiprocessor = 228 << 10;
    p->regsPerBlock = p->regsPerMultiprocessor = 1 << 16;
    p->maxGridSize[0] = 0x7fffffff, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    return cudaSuccess;
}

}

#define REFUSED(name) static inline cudaError_t name(...) { return (cudaError_t)801; }
#define REFUSED3(a, b, c) REFUSED(a) REFUSED(b) REFUSED(c)
REFUSED3(cudaDeviceGetByPCIBusId, cudaDeviceCanAccessPeer, cudaDeviceEnablePeerAccess)
REFUSED3(cudaDeviceDisablePeerAccess, cudaDeviceGetLimit, cudaDeviceSetLimit)
REFUSED3(cudaIpcCloseMemHandle, cudaIpcGetEventHandle, cudaIpcGetMemHandle)
REFUSED3(cudaIpcOpenEventHandle, cudaIpcOpenMemHandle, cudaMallocManaged)
REFUSED3(cudaMalloc3DArray, cudaMallocArray, cudaMallocAsync)
REFUSED3(cudaMallocFromPoolAsync, cudaHostRegister, cudaHostUnregister)
REFUSED3(cudaFreeArray, cudaFreeAsync, cudaMemcpyPeer)
REFUSED3(cudaMemcpyPeerAsync, cudaMemcpy2DFromArray, cudaMemcpy2DFromArrayAsync)
REFUSED3(cudaMemcpy2DToArray, cudaMemcpy2DToArrayAsync, cudaMemcpy2D)
REFUSED3(cudaMemcpy2DAsync, cudaMemcpy3D, cudaMemcpy3DAsync)
REFUSED3(cudaMemPrefetchAsync, cudaMemAdvise, cudaDeviceGetDefaultMemPool)
REFUSED3(cudaDeviceGetMemPool, cudaDeviceSetMemPool, cudaMemPoolCreate)
REFUSED3(cudaMemPoolDestroy, cudaMemPoolTrimTo, cudaMemPoolGetAttribute)
REFUSED3(cudaMemPoolSetAttribute, cudaStreamGetFlags, cudaStreamGetPriority)
REFUSED3(cudaStreamAddCallback, cudaCreateTextureObject, cudaDestroyTextureObject)
REFUSED3(cudaGetChannelDesc, cudaGetTextureObjectResourceDesc, cudaGetTextureObjectTextureDesc)
REFUSED3(cudaCreateSurfaceObject, cudaDestroySurfaceObject, cudaGraphDebugDotPrint)
static inline cudaExtent make_cudaExtent(size_t w, size_t h, size_t d) { return {w, h, d}; }
static inline cudaPos make_cudaPos(size_t x, size_t y, size_t z) { return {x, y, z}; }
static inline cudaPitchedPtr make_cudaPitchedPtr(void *d, size_t p, size_t w, size_t h) { return {p, d, w, h}; }
