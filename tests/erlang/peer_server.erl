%% The connections of a server of "backwater" wire version 1: one process each, one more for the call that runs.
%%
%% Options (a map): compression_threshold, decode_unsafe_terms, max_encoded_args_size, return_exception_stacktraces,
%% recv_timeout (milliseconds, for a body), max_keepalive (requests per connection), certfile and keyfile (for TLS).
-module(peer_server).

-export([start/3, stop/1, stats/1]).

-define(IDLE_MS, 60000).
-define(LINGER_MS, 2000).
-define(MAX_HEAD, 65536).

%% Listens on a free port of 127.0.0.1 and gives it. `Exposed` is [Module | {Module, [{exports, [{Name, Arity}]}]}].
start(Secret, Exposed, Options) ->
    Asker = self(),
    Settings = Options#{secret => Secret, exposed => Exposed},
    {Pid, Monitor} = spawn_monitor(fun() -> listen(Asker, Settings) end),
    receive
        {Pid, listening, Port} -> demonitor(Monitor, [flush]), Port;
        {'DOWN', Monitor, process, Pid, Reason} -> error(Reason)
    end.

%% Ends it with all its connections and the calls that run.
stop(Port) ->
    Monitor = monitor(process, name(Port)),
    exit(whereis(name(Port)), kill),
    receive {'DOWN', Monitor, process, _, _} -> persistent_term:erase(name(Port)), ok end.

stats(Port) ->
    Counts = persistent_term:get(name(Port)),
    #{connections => counters:get(Counts, 1), requests => counters:get(Counts, 2)}.

name(Port) ->
    list_to_atom("peer_server_" ++ integer_to_list(Port)).

listen(Asker, Settings) ->
    process_flag(trap_exit, true), % connections are linked so that they end with us; their own end is no news
    Common = [binary, {packet, raw}, {active, false}, {reuseaddr, true}, {ip, {127, 0, 0, 1}}, {backlog, 128},
              {nodelay, true}],
    {Transport, Socket} = case Settings of
        #{certfile := _} ->
            Tls = [{Key, maps:get(Key, Settings)} || Key <- [certfile, keyfile]],
            {ok, Listening} = ssl:listen(0, Common ++ Tls),
            {ssl, Listening};
        _ ->
            {ok, Listening} = gen_tcp:listen(0, Common),
            {gen_tcp, Listening}
    end,
    {ok, {_, Port}} = sockname(Transport, Socket),
    register(name(Port), self()),
    Counts = counters:new(2, []),
    persistent_term:put(name(Port), Counts),
    Asker ! {self(), listening, Port},
    accept(#{transport => Transport, settings => Settings, counts => Counts, left => maps:get(max_keepalive, Settings, 200)},
           Socket).

sockname(ssl, Socket) -> ssl:sockname(Socket);
sockname(gen_tcp, Socket) -> inet:sockname(Socket).

accept(#{transport := Transport, counts := Counts} = Connection, Listening) ->
    {ok, Socket} = case Transport of
        ssl -> ssl:transport_accept(Listening);
        gen_tcp -> gen_tcp:accept(Listening)
    end,
    counters:add(Counts, 1, 1),
    Pid = spawn_link(fun() -> receive go -> begin_connection(Connection, Socket) end end),
    _ = Transport:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Connection, Listening).

begin_connection(#{transport := ssl} = Connection, Socket) ->
    case ssl:handshake(Socket, ?IDLE_MS) of
        {ok, Ready} -> serve(Connection#{socket => Ready}, <<>>);
        {error, _} -> ok
    end;
begin_connection(Connection, Socket) ->
    serve(Connection#{socket => Socket}, <<>>).

%%% One request after the other

serve(#{counts := Counts, left := Left} = Connection, Buffer) ->
    case read_head(Connection, Buffer) of
        {ok, Head, Rest} ->
            counters:add(Counts, 2, 1),
            case parse_head(Head) of
                {ok, Request} -> respond(Connection#{left := Left - 1}, Request, Rest);
                error -> send(Connection, {400, #{<<"connection">> => <<"close">>}, <<>>, close})
            end;
        error ->
            close(Connection)
    end.

read_head(Connection, Buffer) ->
    case binary:split(Buffer, <<"\r\n\r\n">>) of
        [Head, Rest] -> {ok, Head, Rest};
        [_] when byte_size(Buffer) > ?MAX_HEAD -> error;
        [_] ->
            case receive_more(Connection, 0, ?IDLE_MS) of
                {ok, More} -> read_head(Connection, <<Buffer/binary, More/binary>>);
                {error, _} -> error
            end
    end.

receive_more(#{transport := Transport, socket := Socket}, Size, Timeout) ->
    Transport:recv(Socket, Size, Timeout).

parse_head(Head) ->
    try
        [RequestLine | Lines] = binary:split(Head, <<"\r\n">>, [global]),
        [Method, Target, <<"HTTP/1.", Minor>>] = binary:split(RequestLine, <<" ">>, [global]),
        [Path | Query] = binary:split(Target, <<"?">>),
        <<"/", _/binary>> = Path,
        Headers = peer_wire:joined([parse_header(Line) || Line <- Lines]),
        _ = binary_to_integer(maps:get(<<"content-length">>, Headers, <<"0">>)),
        {ok, #{method => Method, path => Path, query => iolist_to_binary(Query), minor => Minor - $0,
               %% as cowboy: where the body is in chunks, content-length does not count
               headers => case Headers of
                   #{<<"transfer-encoding">> := _} -> maps:remove(<<"content-length">>, Headers);
                   _ -> Headers
               end}}
    catch error:_ -> error
    end.

parse_header(Line) ->
    [Name, Value] = binary:split(Line, <<":">>),
    true = Name =/= <<>>,
    {Name, Value}.

respond(#{settings := Settings} = Connection, #{headers := Headers} = Request, Rest) ->
    Me = self(),
    Read = fun() -> read_body(Connection, Headers, Rest, Me) end,
    {Response, Behind} = case peer_steps:answer(Request#{settings => Settings, read => Read}) of
        {refused, Refusal} -> {Refusal, unread};
        {call, Module, Function, Args, Answer} ->
            Unseen = receive {behind_body, Bytes} -> Bytes end, % a call is made of a body that was read
            {Outcome, Seen} = run(Connection, {Module, Function, Args}, Unseen),
            {Answer(Outcome), Seen}
    end,
    case {send(Connection, last_or_not(Connection, Request, Response)), Behind} of
        {closed, _} -> ok;
        {keep, unread} -> skip_body(Connection, Read);
        {keep, Buffer} -> serve(Connection, Buffer)
    end.

skip_body(Connection, Read) ->
    case Read() of
        {ok, _} -> serve(Connection, receive {behind_body, Bytes} -> Bytes end);
        error -> close(Connection)
    end.

last_or_not(#{left := Left}, #{headers := Headers, minor := Minor}, {Status, Answered, Body, Next}) ->
    Asked = peer_wire:lower(maps:get(<<"connection">>, Headers, <<>>)),
    case Left =< 0 orelse Minor =:= 0 orelse Asked =:= <<"close">> of
        true -> {Status, Answered#{<<"connection">> => <<"close">>}, Body, close};
        false -> {Status, Answered, Body, Next}
    end.

read_body(_Connection, #{<<"transfer-encoding">> := _}, _Rest, _Me) ->
    error;
read_body(Connection, Headers, Rest, Me) ->
    Size = binary_to_integer(maps:get(<<"content-length">>, Headers, <<"0">>)),
    maps:get(<<"expect">>, Headers, none) =:= <<"100-continue">> andalso byte_size(Rest) < Size
        andalso write(Connection, <<"HTTP/1.1 100 Continue\r\n\r\n">>),
    case Rest of
        <<Body:Size/binary, Behind/binary>> -> Me ! {behind_body, Behind}, {ok, Body};
        _ ->
            Timeout = maps:get(recv_timeout, maps:get(settings, Connection), 5000),
            case receive_more(Connection, Size - byte_size(Rest), Timeout) of
                {ok, More} -> Me ! {behind_body, <<>>}, {ok, <<Rest/binary, More/binary>>};
                {error, _} -> error
            end
    end.

%%% The call

%% When the client goes away the call is killed; a call that dies without an outcome is never answered.
run(Connection, Target, Buffer) ->
    Me = self(),
    process_flag(trap_exit, true),
    Running = spawn_link(fun() -> Me ! {self(), outcome(Target)} end),
    Done = watch(Connection, Running, Buffer),
    process_flag(trap_exit, false),
    receive {'EXIT', _Server, Reason} -> exit(Reason) % it ended while it could not end us
    after 0 -> Done
    end.

watch(#{transport := Transport, socket := Socket} = Connection, Running, Buffer) ->
    Active = case Transport of ssl -> ssl; gen_tcp -> inet end,
    _ = Active:setopts(Socket, [{active, once}]),
    receive
        {Running, Outcome} ->
            _ = Active:setopts(Socket, [{active, false}]),
            receive {'EXIT', Running, _} -> ok end,
            {Outcome, receive {Kind, Socket, Bytes} when Kind =:= tcp; Kind =:= ssl -> <<Buffer/binary, Bytes/binary>>
                      after 0 -> Buffer
                      end};
        {Kind, Socket, Bytes} when Kind =:= tcp; Kind =:= ssl ->
            watch(Connection, Running, <<Buffer/binary, Bytes/binary>>);
        {Kind, Socket} when Kind =:= tcp_closed; Kind =:= ssl_closed -> gone(Running);
        {Kind, Socket, _} when Kind =:= tcp_error; Kind =:= ssl_error -> gone(Running);
        {'EXIT', From, Reason} when From =/= Running -> exit(Running, kill), exit(Reason)
    end.

gone(Running) ->
    exit(Running, kill),
    exit(normal).

outcome({Module, Function, Args}) ->
    try {return, apply(Module, Function, Args)}
    catch Class:Reason:Stack ->
        case {Class, Reason, Stack} of
            {error, undef, [{Module, Function, Args, _} | _]} -> undefined_target;
            _ -> {exception, {Class, Reason, above_us(Stack)}}
        end
    end.

above_us(Stack) ->
    lists:takewhile(fun(Frame) -> element(1, Frame) =/= ?MODULE end, Stack).

%%% Sending

send(Connection, {Status, Headers, Body, Next}) ->
    All = Headers#{<<"date">> => list_to_binary(httpd_util:rfc1123_date()), <<"server">> => <<"peer">>,
                   <<"content-length">> => integer_to_binary(byte_size(Body))},
    Lines = [[Name, ": ", Value, "\r\n"] || {Name, Value} <- lists:sort(maps:to_list(All))],
    StatusLine = ["HTTP/1.1 ", integer_to_binary(Status), " ", httpd_util:reason_phrase(Status), "\r\n"],
    case {write(Connection, [StatusLine, Lines, "\r\n", Body]), Next} of
        {ok, keep} -> keep;
        _ -> close(Connection), closed
    end.

write(#{transport := Transport, socket := Socket}, Data) ->
    Transport:send(Socket, Data).

%% What still comes is read away for a while: closing a socket with unread bytes would take the answer back.
close(#{transport := Transport, socket := Socket} = Connection) ->
    _ = Transport:shutdown(Socket, write),
    drain(Connection, erlang:monotonic_time(millisecond) + ?LINGER_MS),
    Transport:close(Socket).

drain(Connection, Until) ->
    case receive_more(Connection, 0, max(0, Until - erlang:monotonic_time(millisecond))) of
        {ok, _} -> drain(Connection, Until);
        {error, _} -> ok
    end.
