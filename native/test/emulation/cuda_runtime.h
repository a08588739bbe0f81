// Stands for the header of CUDA that the kernels include.
#pragma once
#include "test/emulation/emulated_cuda.h"
