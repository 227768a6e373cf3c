package wechattest

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Push is one event on its way to a callback, which can be delivered several times.
type Push struct {
	InfoType   string `json:"info_type"`
	Authorizer string `json:"authorizer,omitempty"` // create_auth and reset_permanent_code leave it out
	Code       string `json:"code,omitempty"`
	Ticket     string `json:"ticket,omitempty"`
	// Order is the CreateTime or TimeStamp: when it happened, in Unix seconds.
	Order int64 `json:"order"`
}

// Delivery is one way in which a push is delivered.
type Delivery struct {
	// After is how much later than it happened.
	After time.Duration
	// PreviousKey encrypts it with [Platform.PreviousAESKey].
	PreviousKey bool
	// Empty sends it without a body, as users have seen.
	Empty bool
}

// Pushed is one attempt to deliver a push.
type Pushed struct {
	Push
	At     time.Time `json:"at"`     // when the attempt ended
	Status int       `json:"status"` // 0 if there was no answer
	Answer string    `json:"answer"` // at most 64 bytes
	// OK says that it was answered by 200 and "success", in time.
	OK bool `json:"ok"`
}

// answerIn is how long WeChat waits for the answer to a push; WeCom waits a second where it asks to
// answer before working [T].
func answerIn(infoType string) time.Duration {
	switch infoType {
	case "create_auth", "change_auth", "cancel_auth", "reset_permanent_code":
		return time.Second
	}
	return 5 * time.Second
}

// RunPushes delivers the pushes of all platforms until ctx is done: a ticket each
// [PlatformKnobs.TicketEvery], and each event at once. Events wait for it. Call it once; it returns
// after its last request has ended.
func (s *Server) RunPushes(ctx context.Context) {
	var deliveries sync.WaitGroup
	defer deliveries.Wait()
	for {
		wait := s.launchDue(ctx, &deliveries)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-s.wake:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}

// launchDue starts what is due, and returns how long nothing else is.
func (s *Server) launchDue(ctx context.Context, deliveries *sync.WaitGroup) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wait := time.Now(), time.Hour
	for _, p := range s.platforms {
		if p.Kind != Provider && !p.stopped {
			if !now.Before(p.nextTicket) {
				p.pushTicket(now)
				p.nextTicket = now.Add(max(p.knobs.TicketEvery, time.Second))
			}
			wait = min(wait, p.nextTicket.Sub(now))
		}
		for _, push := range p.queue {
			deliveries.Go(func() { s.deliver(ctx, p, push, deliveries) })
		}
		p.queue = nil
	}
	return wait
}

// newTicket makes a ticket and forgets those that are long dead. Caller holds s.mu.
func (p *platform) newTicket(now time.Time) {
	p.tickets = slices.DeleteFunc(p.tickets, func(t pushedTicket) bool { return now.Sub(t.at) > 2*p.knobs.TicketLife })
	value := randomText(86)
	if !p.onWeCom() {
		value = "ticket@@@" + value
	}
	p.tickets = append(p.tickets, pushedTicket{value, now})
}

// pushTicket queues a ticket. Caller holds s.mu.
func (p *platform) pushTicket(now time.Time) {
	last := len(p.tickets) - 1
	if !p.knobs.TicketRepeats || last < 0 || now.Sub(p.tickets[last].at) > p.knobs.TicketLife/2 {
		p.newTicket(now)
		last = len(p.tickets) - 1
	}
	infoType := "component_verify_ticket"
	if p.onWeCom() {
		infoType = "suite_ticket"
	}
	p.queue = append(p.queue, Push{InfoType: infoType, Ticket: p.tickets[last].value, Order: now.Unix()})
}

// PushTicket pushes a ticket out of turn, as the console can, even if they are stopped.
func (s *Server) PushTicket(platform string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform(platform).pushTicket(time.Now())
	s.wakeUp()
}

// Ticket returns the newest ticket of a platform, pushed or not; if there is none yet, it makes one
// that is never pushed. It is for tests that are about something else.
func (s *Server) Ticket(platform string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.platform(platform)
	if len(p.tickets) == 0 {
		p.newTicket(time.Now())
	}
	return p.tickets[len(p.tickets)-1].value
}

// StopTickets stops the tickets of a platform until api_start_push_ticket.
func (s *Server) StopTickets(platform string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.platform(platform).stopped = true
}

// StartTickets ends [Server.StopTickets]; a ticket is due at once.
func (s *Server) StartTickets(platform string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.startTickets(s.platform(platform))
}

func (s *Server) startTickets(p *platform) {
	if p.stopped {
		p.stopped, p.nextTicket = false, time.Now()
		s.wakeUp()
	}
}

// PushEvent pushes an event of any InfoType. An Order of 0 is now. It changes nothing else.
func (s *Server) PushEvent(platform string, event Push) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.push(s.platform(platform), event)
}

// push queues an event. Caller holds s.mu.
func (s *Server) push(p *platform, event Push) {
	if event.Order == 0 {
		event.Order = time.Now().Unix()
	}
	p.queue = append(p.queue, event)
	s.wakeUp()
}

// wakeUp lets RunPushes look again. It never waits.
func (s *Server) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Pushed returns every attempt to deliver a push of a platform, in the order in which they ended.
func (s *Server) Pushed(platform string) []Pushed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.platform(platform).pushed)
}
