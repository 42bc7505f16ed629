#include "launcher/cli.h"
#include "launcher/standard_files.h"

int main(int argc, char** argv) {
  troupe::open_standard_files();
  return troupe::say_the_rest(troupe::run_command_line(argc, argv));
}
