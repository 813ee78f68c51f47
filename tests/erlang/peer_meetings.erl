%% Where a call waits for a test and a test for a call, by name; who comes first waits. A name serves once.
-module(peer_meetings).

-export([start/0, hold/1, release/1, holder/1, ended/1]).

start() ->
    Pid = spawn_link(fun() -> loop(#{}, #{}, #{}) end),
    true = register(?MODULE, Pid),
    ok.

%% For the call: waits for the release.
hold(Name) -> ask({hold, Name}).

%% For the test: lets the call go on.
release(Name) -> ?MODULE ! {release, Name}, ok.

%% Waits until a call holds; gives its process.
holder(Name) -> ask({holder, Name}).

%% Waits until the call that held has ended; gives why.
ended(Name) ->
    Monitor = monitor(process, holder(Name)),
    receive {'DOWN', Monitor, process, _, Reason} -> Reason end.

ask(Question) ->
    Tag = make_ref(),
    ?MODULE ! {Question, self(), Tag},
    receive {Tag, Answer} -> Answer end.

%% Holders: Name => {Pid, Tag}; Released: Name => true; Askers: Name => [{Pid, Tag}].
loop(Holders, Released, Askers) ->
    receive
        {{hold, Name}, Pid, Tag} ->
            [Asker ! {AskerTag, Pid} || {Asker, AskerTag} <- maps:get(Name, Askers, [])],
            is_map_key(Name, Released) andalso (Pid ! {Tag, released}),
            loop(Holders#{Name => {Pid, Tag}}, Released, maps:remove(Name, Askers));
        {{holder, Name}, Pid, Tag} when is_map_key(Name, Holders) ->
            Pid ! {Tag, element(1, maps:get(Name, Holders))},
            loop(Holders, Released, Askers);
        {{holder, Name}, Pid, Tag} ->
            loop(Holders, Released, Askers#{Name => [{Pid, Tag} | maps:get(Name, Askers, [])]});
        {release, Name} ->
            case Holders of #{Name := {Pid, Tag}} -> Pid ! {Tag, released}; _ -> ok end,
            loop(Holders, Released#{Name => true}, Askers)
    end.
