// Package resident gives memory back to the system that the program has needed to start, and needs
// no more.
package resident
