package faults

import "slices"

// rows are all faults, in the order of the table.
func rows() []row {
	return slices.Concat(holderRows, lostReplyRows(), redisRows, serverRows, fleetRows, upstreamRows(), refusalRows, foreignRows, orderRows, proxiedRows, platformRows)
}
