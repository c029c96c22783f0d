//go:build !race

package ring

func orderStore() {}
func orderLoad()  {}
