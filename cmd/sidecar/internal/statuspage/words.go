package statuspage

import (
	"github.com/wxtoken/sidecar/pkg/tokencache"
)

func reasonWords(r tokencache.Reason) string {
	switch r {
	case tokencache.ReasonMissing:
		return "there was none"
	case tokencache.ReasonDue:
		return "it was time"
	case tokencache.ReasonReport:
		return "an app reported it"
	}
	return string(r)
}

func resultWords(r, why tokencache.Result) string {
	switch r {
	case tokencache.ResultCut:
		if why == tokencache.ResultFetch {
			return "asked, no end is known"
		}
		return "old value cut short"
	case tokencache.ResultDoubtResolved:
		return "old value still good"
	case tokencache.ResultLeaseCapped:
		return "lock key without an end cut short"
	case tokencache.ResultDiscarded:
		return "foreign value in Redis deleted"
	case tokencache.ResultCommitted:
		return "new value"
	case tokencache.ResultUnchanged:
		return "same value again"
	case tokencache.ResultFailed:
		return "failed"
	case tokencache.ResultOrphaned:
		return "Redis lost before the end"
	case tokencache.ResultRefused:
		return "came too late, not used"
	case tokencache.ResultThrottled:
		return "allowance spent"
	case tokencache.ResultAccepted:
		return "the value works"
	case tokencache.ResultUnknown:
		return "no clear answer"
	}
	return string(r)
}

// ended returns entries, newest first, without the beginnings of those fetches whose end follows.
func ended(entries []entryStatus) []entryStatus {
	type who struct{ app, kind, by string }
	later := map[who]bool{}
	var shown []entryStatus
	for _, e := range entries {
		w := who{e.App, e.Kind, e.By}
		if e.Result == tokencache.ResultCut && e.Why == tokencache.ResultFetch && later[w] {
			continue
		}
		later[w] = true
		shown = append(shown, e)
	}
	return shown
}

// sign says a level without a colour.
func sign(l level) string {
	switch l {
	case levelTrouble:
		return "✕"
	case levelAttention:
		return "!"
	}
	return "✓"
}

// resultLevel says how a line of the journal looks.
func resultLevel(r tokencache.Result) level {
	switch r {
	case tokencache.ResultCommitted, tokencache.ResultUnchanged, tokencache.ResultAccepted, tokencache.ResultDoubtResolved:
		return levelWell
	case tokencache.ResultFailed:
		return levelTrouble
	}
	return levelAttention
}
