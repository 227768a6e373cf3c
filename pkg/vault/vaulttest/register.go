package vaulttest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/anishathalye/porcupine"

	"github.com/wxtoken/sidecar/pkg/vault"
)

// seen is what a client knows of a record: its rev, and the text of its secret.
type seen struct {
	rev  int64
	text string
}

// operation is a call of a client. text is empty for a load.
type operation struct {
	id   string
	over int64 // the rev that was to be replaced
	text string
}

// outcome is the answer to an operation: what was loaded, or the rev that was written; conflict if
// nothing was.
type outcome struct {
	seen
	conflict bool
}

// record is what each record of a vault must be: a register with compare-and-swap.
var record = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		of := map[string][]porcupine.Operation{}
		for _, op := range history {
			id := op.Input.(operation).id
			of[id] = append(of[id], op)
		}
		var parts [][]porcupine.Operation
		for _, part := range of {
			parts = append(parts, part)
		}
		return parts
	},
	Init: func() any { return seen{} },
	Step: func(state, input, output any) (bool, any) {
		now, in, out := state.(seen), input.(operation), output.(outcome)
		switch {
		case in.text == "":
			return out.seen == now, now
		case out.conflict:
			return in.over != now.rev, now
		default:
			next := seen{now.rev + 1, in.text}
			return in.over == now.rev && out.rev == next.rev, next
		}
	},
}

// aRegister is checked on many clients that load and save at once, some of them over what they saw
// long ago: there is one order of all calls in which each gets what the ones before it left.
func aRegister(t *testing.T, v *vault.Vault) {
	const clients, calls, records = 6, 40, 3
	var (
		mu      sync.Mutex
		clock   int64 // counts the begins and ends of the calls
		history []porcupine.Operation
	)
	tick := func() int64 {
		mu.Lock()
		defer mu.Unlock()
		clock++
		return clock
	}
	var wg sync.WaitGroup
	for client := range clients {
		wg.Go(func() {
			dice := rand.New(rand.NewPCG(1, uint64(client)))
			var known [records]int64
			for call := range calls {
				n := dice.IntN(records)
				in := operation{id: fmt.Sprint("wx", n)}
				if dice.IntN(2) == 0 {
					in.over, in.text = known[n], fmt.Sprintf("of client %d, call %d", client, call)
				}
				began := tick()
				out, err := in.run(t, v)
				ended := tick()
				if err != nil {
					t.Error(err)
					return
				}
				if !out.conflict {
					known[n] = out.rev
				}
				mu.Lock()
				history = append(history, porcupine.Operation{ClientId: client, Input: in, Output: out, Call: began, Return: ended})
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if !porcupine.CheckOperations(record, history) {
		t.Error("no order of the calls explains what they got")
	}
}

func (in operation) run(t *testing.T, v *vault.Vault) (outcome, error) {
	if in.text == "" {
		r, err := v.Load(t.Context(), Platform, in.id)
		return outcome{seen: seen{r.Rev, r.Secret.Reveal()}}, err
	}
	r := active(in.id, in.text)
	r.Rev = in.over
	saved, err := v.Save(t.Context(), r)
	if errors.Is(err, vault.ErrConflict) {
		return outcome{conflict: true}, nil
	}
	return outcome{seen: seen{rev: saved.Rev}}, err
}
