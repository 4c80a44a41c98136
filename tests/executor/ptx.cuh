#pragma once
#include "cuda_emu.h"
#define DYN_SHARED(name) unsigned char *name = emu::dynamic_shared()
