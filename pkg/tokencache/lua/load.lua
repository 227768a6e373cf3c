-- load: the state, and nothing else.
return state(arg.brief == '1')
