//go:build !cgo && !core

package zpipes

// zpipes stands on libzmq, a C library; what does not is its core, which the tag core builds
// alone, for its tests. Without cgo, which Go turns off by itself where it finds no C
// compiler, this line makes the build fail with a name that says what to do.
var _ = zpipes_needs_cgo_set_CGO_ENABLED_1_and_install_gcc_pkg_config_libzmq3_dev
