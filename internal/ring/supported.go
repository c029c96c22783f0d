//go:build linux && (amd64 || arm64 || loong64 || ppc64le || riscv64 || s390x)

package ring

// Supported says whether two processes can share a ring here.
const Supported = true
