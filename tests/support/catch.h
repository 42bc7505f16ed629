// Catch2, included last: below this line CHECK is Catch's. The headers above keep the CHECK they were read with.
#pragma once

#include "kernels/base/check.h"

#undef CHECK
#include <catch2/catch.hpp>
