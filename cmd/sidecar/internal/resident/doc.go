// Package resident gives memory back to the system that the program has needed to start, and needs
// no more. What is allocated is package heap's matter.
package resident
