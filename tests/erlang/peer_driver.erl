%% Does what the tests say: evaluates expressions that arrive in frames on file descriptor 0, one process for each.
%%
%% A frame is <<Size:32, Content>>. Asked: <<Id:32, Kind, ExpressionSize:32, Expression/utf8, Bindings>>, Kind $t for the
%% printed value or $b for a value that is a binary; a binding is <<NameSize, Name, Kind, ValueSize:32, Value>>, Kind $b
%% (a binary) or $i (an integer, in decimal). Answered: <<Id:32, Status, Bytes>>, Status $o (done) or $r (raised).
%% The VM ends when its input does, so no test leaves one behind.
-module(peer_driver).

-export([main/1]).

main([Output]) ->
    {ok, _} = application:ensure_all_started(inets),
    {ok, _} = application:ensure_all_started(crypto),
    _ = application:ensure_all_started(ssl), % without it, only what is about TLS fails
    ok = peer_functions:start(),
    ok = peer_meetings:start(),
    Port = open_port({fd, 0, list_to_integer(atom_to_list(Output))}, [{packet, 4}, binary, eof]),
    Port ! {self(), {command, <<0:32, $o, (list_to_binary(erlang:system_info(otp_release)))/binary>>}},
    loop(Port).

loop(Port) ->
    receive
        {Port, {data, Frame}} ->
            Driver = self(),
            spawn(fun() -> Driver ! {answer, work(Frame)} end),
            loop(Port);
        {answer, Answer} ->
            Port ! {self(), {command, Answer}},
            loop(Port);
        {Port, eof} -> halt(0, [{flush, false}]);
        _ -> loop(Port)
    end.

work(<<Id:32, Kind, Size:32, Expression:Size/binary, Bindings/binary>>) ->
    {Status, Bytes} =
        try {$o, shown(Kind, evaluate(Expression, bindings(Bindings)))}
        catch Class:Reason:Stack -> {$r, printed({Class, Reason, Stack})}
        end,
    <<Id:32, Status, Bytes/binary>>.

shown($t, Value) -> printed(Value);
shown($b, Value) when is_binary(Value) -> Value.

printed(Value) -> unicode:characters_to_binary(io_lib:format("~0tp", [Value])).

evaluate(Expression, Bindings) ->
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list([Expression, "."])),
    {ok, Parsed} = erl_parse:parse_exprs(Tokens),
    {value, Value, _} = erl_eval:exprs(Parsed, Bindings),
    Value.

bindings(<<>>) -> erl_eval:new_bindings();
bindings(<<NameSize, Name:NameSize/binary, Kind, Size:32, Value:Size/binary, Rest/binary>>) ->
    Bound = case Kind of $b -> Value; $i -> binary_to_integer(Value) end,
    erl_eval:add_binding(binary_to_atom(Name), Bound, bindings(Rest)).
