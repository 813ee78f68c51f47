%% What a peer's server exposes for tests beside modules of OTP.
-module(peer_functions).

-export([echo/1, raise/2, sleep/1, big/1, count/1, counted/1, hold/1, nothing/0]).
-export([start/0]).

-define(TABLE, peer_functions).

%% To be called by a process that lives as long as the VM: it owns the table.
start() ->
    ?TABLE = ets:new(?TABLE, [named_table, public]),
    ok.

nothing() -> ok.

echo(Term) -> Term.

raise(Class, Reason) -> erlang:raise(Class, Reason, []).

sleep(Ms) -> receive after Ms -> ok end.

big(Size) -> binary:copy(<<"big result ">>, Size div 11 + 1).

%% Adds one, and gives how often it did: tells whether a call was made twice.
count(Name) -> ets:update_counter(?TABLE, {count, Name}, 1, {{count, Name}, 0}).

counted(Name) ->
    case ets:lookup(?TABLE, {count, Name}) of [{_, Count}] -> Count; [] -> 0 end.

%% Waits until a test says peer_meetings:release(Name): so a test meets a call in the middle.
hold(Name) -> peer_meetings:hold(Name).
