/* sgd_step.cu - one step of gradient descent with momentum and weight decay, for all parameters of a network in one pass.
   v[i] = momentum*v[i] - lr*(dw[i] + weight_decay*w[i]),  then  w[i] = w[i] + v[i];   nothing where loss is not finite

   copies of w as maps are stored are written too where that is not float32 itself

   w, v (changed in place), dw   up to TENSORS tensors of any shape, `total` elements each   float32   C-contiguous
   lr       float32, one number  }  in device memory, so that a launch kept in a CUDA graph finds the numbers of its step
   loss     float64, one number  }

   work      one thread = LANES neighbouring elements, of the last ones what is left; a block stays within one tensor
   traffic   20 bytes an element, 22 with a copy in bf16; over the bandwidth, that is the floor
   spec      zfcore/ops/sgd_step.py: sgd_step_reference                                                   */
#ifndef LANES
#define LANES 4
#endif
#define TENSORS 16
template <class T> struct Each { T of[TENSORS]; };
#include <stored.cuh>

extern "C" __global__ void sgd_step(Each<float *> w, Each<const float *> dw, Each<float *> v, Each<long long> total,
    Each<float> weight_decay, float momentum, const float *lr, const double *loss, Each<stored *> copies)
{
    if (*loss - *loss != 0) return;                                         // infinite or not a number
    int t = 0, block = blockIdx.x;                                          // of the tensor t
    for (int blocks; block >= (blocks = (total.of[t] + LANES * blockDim.x - 1) / (LANES * blockDim.x)); t++) block -= blocks;
    long long i = ((long long)block * blockDim.x + threadIdx.x) * LANES;
    if (i >= total.of[t]) return;
    float *weights = w.of[t] + i, *velocities = v.of[t] + i, rate = *lr, decay = weight_decay.of[t];
    const float *gradients = dw.of[t] + i;
    if (i + LANES <= total.of[t]) {
        Pack weight = *(Pack *)weights, gradient = *(const Pack *)gradients, velocity = *(Pack *)velocities;
        for (int k = 0; k < LANES; k++) {
            velocity.v[k] = momentum * velocity.v[k] - rate * (gradient.v[k] + decay * weight.v[k]);
            weight.v[k] += velocity.v[k];
        }
        *(Pack *)velocities = velocity;
        *(Pack *)weights = weight;
        if (PRECISION == BF16) *(Stored *)(copies.of[t] + i) = weight;
    } else
        for (int k = 0; k < total.of[t] - i; k++) {
            velocities[k] = momentum * velocities[k] - rate * (gradients[k] + decay * weights[k]);
            weights[k] += velocities[k];
            if (PRECISION == BF16) copies.of[t][i + k] = as_stored(weights[k]);
        }
}
