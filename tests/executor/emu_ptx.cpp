#include "emu_rt.h"
namespace emu {
void ptx_start_block() {}
void ptx_end_block() {}
bool ptx_finish_a_copy() { return false; }
}
