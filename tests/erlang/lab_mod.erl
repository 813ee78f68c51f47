%% What the captured messages call under this name: see tests/vectors/erlang.py.
-module(lab_mod).

-export([id/1, big/1, sleep/1, kill_self/0, deep_error/1]).
-export(['a+b'/0, 'a b'/0, 'h\x{e9}\x{e9}'/0, 'a/b'/1, '%41'/0, 'a*b!$(c)@d~e'/0]).

id(X) -> X.

big(Size) -> binary:copy(<<"x">>, Size).

sleep(Ms) -> receive after Ms -> slept end.

kill_self() -> exit(self(), kill), receive after infinity -> ok end.

'a+b'() -> plus.
'a b'() -> space.
'h\x{e9}\x{e9}'() -> latin1_name.
'a/b'(N) -> {slash, N}.
'%41'() -> percent.
'a*b!$(c)@d~e'() -> punct.

%% The place that a captured stack trace names; nothing after this line has a true place.
-file("tools/lab_mod.erl", 14).
deep_error(0) -> error({deep, "reason"});
deep_error(N) -> deep_error(N - 1).
