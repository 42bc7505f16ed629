// Worlds of virtual time: placeholder until the cases come.
