-- load: the state, and nothing else.
return state()
