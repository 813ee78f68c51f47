%% What a server of "backwater" wire version 1 asks of a request, in its order, and the answer that it signs.
%%
%% The request is a map: method, path, query (<<>> or what follows the question mark), headers (lower case, joined),
%% read (a fun that gives {ok, Body} or error), and `settings` of the server: secret, exposed and its options.
-module(peer_steps).

-export([answer/1]).

-define(ETF, <<"application/x-erlang-etf">>).
-define(MUST_BE_SIGNED, [<<"accept">>, <<"content-encoding">>, <<"content-length">>, <<"content-type">>]).

%% {call, Module, Function, Args, Answer}, where Answer makes the response of what was returned or raised,
%% or {refused, Response}. A response is {Status, Headers, Body, keep | close}.
answer(Request) ->
    try lists:foldl(fun(Step, State) -> Step(State) end, Request, steps()) of
        #{module := Module, function := Function, args := Args} = State ->
            {call, Module, Function, Args, fun(Outcome) -> result(Outcome, State) end}
    catch
        throw:{unsigned, Status, Body} -> {refused, refusal(Status, Body, Request)};
        throw:{signed, Status, Body} -> {refused, signed(refusal(Status, Body, Request), Request)};
        throw:{bare, Status} -> {refused, {Status, #{}, <<>>, keep}}
    end.

steps() ->
    [fun find_prefix/1, fun check_signature/1, fun check_method/1, fun check_path/1, fun check_arity/1,
     fun check_module/1, fun check_function/1, fun parse_content_type/1, fun parse_accept/1, fun check_content_type/1,
     fun check_content_encoding/1, fun check_accept/1, fun check_length/1, fun read_body/1, fun check_digest/1,
     fun unpack/1, fun decode/1, fun check_args/1].

%%% Who asks, and for what

find_prefix(#{path := Path} = State) ->
    Segments = try [unquote(Segment) || Segment <- binary:split(Path, <<"/">>, [global]), Segment =/= <<>>]
               catch error:_ -> throw({bare, 400})
               end,
    case without_dots(Segments, []) of
        [<<"backwater">>, <<"1">> | Rest] -> State#{segments => Rest};
        _ -> throw({bare, 404})
    end.

unquote(<<$%, Hex:2/binary, Rest/binary>>) -> <<(binary_to_integer(Hex, 16)), (unquote(Rest))/binary>>;
unquote(<<Byte, Rest/binary>>) when Byte =/= $% -> <<Byte, (unquote(Rest))/binary>>;
unquote(<<>>) -> <<>>.

without_dots([], Seen) -> lists:reverse(Seen);
without_dots([<<".">> | Rest], Seen) -> without_dots(Rest, Seen);
without_dots([<<"..">> | Rest], []) -> without_dots(Rest, []);
without_dots([<<"..">> | Rest], [_ | Seen]) -> without_dots(Rest, Seen);
without_dots([Segment | Rest], Seen) -> without_dots(Rest, [Segment | Seen]).

check_signature(#{headers := Headers, settings := #{secret := Secret}} = State) ->
    Params = case Headers of
        #{<<"authorization">> := <<"Signature ", Text/binary>>} ->
            case peer_wire:parse_params(Text) of
                {ok, Found} -> Found;
                error -> throw({unsigned, 401, invalid_header_params})
            end;
        #{<<"authorization">> := _} -> throw({unsigned, 401, invalid_auth_type});
        _ -> throw({unsigned, 401, missing_authorization_header})
    end,
    case peer_wire:check(Secret, Params, target(State), Headers, ?MUST_BE_SIGNED) of
        {ok, Names} -> State#{signed => Names};
        crash -> throw({bare, 500});
        {error, Why} -> throw({unsigned, 401, Why})
    end.

%% The question mark itself is not signed: so backwater has it.
target(#{method := Method, path := Path, query := Query}) ->
    {<<"(request-target)">>, iolist_to_binary([peer_wire:lower(Method), " ", Path, Query])}.

check_method(#{method := <<"POST">>} = State) -> State;
check_method(_) -> throw({signed, 405, <<>>}).

check_path(#{segments := [_, _, _]} = State) -> State;
check_path(_) -> throw({signed, 400, invalid_path}).

check_arity(#{segments := [_, _, Text]} = State) ->
    try binary_to_integer(Text) of
        Arity when Arity >= 0, Arity =< 255 -> State#{arity => Arity};
        _ -> throw({signed, 400, invalid_arity})
    catch error:badarg -> throw({signed, 400, invalid_arity})
    end.

check_module(#{segments := [Name, _, _], settings := #{exposed := Exposed}} = State) ->
    Named = [Entry || Entry <- Exposed, atom_to_binary(module_of(Entry)) =:= Name],
    case Named of
        [Entry | _] -> State#{module => module_of(Entry), exports => exports_of(Entry)};
        [] -> throw({signed, 403, <<>>})
    end.

module_of({Module, _Options}) -> Module;
module_of(Module) -> Module.

exports_of({_Module, Options}) -> proplists:get_value(exports, Options, all);
exports_of(_Module) -> all.

check_function(#{segments := [_, Name, _], arity := Arity, module := Module, exports := Exposed} = State) ->
    case code:ensure_loaded(Module) of
        {module, Module} -> ok;
        {error, _} -> throw({signed, 404, module_not_found})
    end,
    Hidden = [{module_info, 0}, {module_info, 1}, {behaviour_info, 1}, {'__info__', 1}, {backwater_export, 0}],
    Fitting = [Function || {Function, Its} = Export <- Module:module_info(exports) -- Hidden, Its =:= Arity,
               atom_to_binary(Function) =:= Name, Exposed =:= all orelse lists:member(Export, Exposed)],
    case Fitting of
        [Function] -> State#{function => Function};
        [] -> throw({signed, 404, function_not_found})
    end.

%%% What it sends, and what it takes

parse_content_type(#{headers := #{<<"content-type">> := Text}} = State) ->
    case media_type(Text) of
        {Type, _Quality} -> State#{type => Type};
        error -> throw({bare, 400})
    end;
parse_content_type(_) ->
    throw({signed, 400, bad_content_type}).

parse_accept(#{headers := Headers, signed := Signed} = State) ->
    %% Only a header that is signed may be read; backwater notices that here, by dying.
    is_map_key(<<"accept-encoding">>, Headers) andalso not lists:member(<<"accept-encoding">>, Signed)
        andalso throw({bare, 500}),
    State#{accept => choices(Headers, <<"accept">>, fun media_type/1),
           accept_encoding => choices(Headers, <<"accept-encoding">>, fun weighed_token/1)}.

%% Names by falling quality; of equal ones the last comes first.
choices(Headers, Name, Parse) ->
    Pieces = binary:split(maps:get(Name, Headers, <<>>), <<",">>, [global]),
    Parsed = [Parse(Piece) || Piece <- Pieces, peer_wire:trim(Piece) =/= <<>>],
    lists:member(error, Parsed) andalso throw({bare, 400}),
    [Choice || {Choice, _} <- lists:reverse(lists:keysort(2, Parsed))].

media_type(Text) ->
    case weighed_token(Text) of
        {Name, Quality} ->
            case re:run(Name, "^[^/]+/[^/]+$") of nomatch -> error; _ -> {Name, Quality} end;
        error -> error
    end.

%% {LowerName, Quality in thousandths}; parameters other than q are skipped.
weighed_token(Text) ->
    [Name | Params] = [peer_wire:trim(Piece) || Piece <- binary:split(Text, <<";">>, [global])],
    Weights = [quality(peer_wire:lower(Param)) || Param <- Params],
    case re:run(Name, "^[-!#$%&'*+.^_`|~0-9A-Za-z/]+$") =:= nomatch orelse lists:member(error, Weights) of
        true -> error;
        false -> {peer_wire:lower(Name), lists:last([1000 | [Weight || Weight <- Weights, is_integer(Weight)]])}
    end.

quality(<<"q=", Number/binary>>) ->
    case re:run(Number, "^(0(\\.[0-9]{0,3})?|1(\\.0{0,3})?)$") of
        nomatch -> error;
        _ -> thousandths(binary:replace(Number, <<".">>, <<>>))
    end;
quality(Param) ->
    case binary:match(Param, <<"=">>) of nomatch -> error; _ -> other end.

thousandths(Digits) ->
    binary_to_integer(<<Digits/binary, (binary:copy(<<"0">>, 4 - byte_size(Digits)))/binary>>).

check_content_type(#{type := ?ETF} = State) -> State;
check_content_type(_) -> throw({signed, 415, unsupported_content_type}).

check_content_encoding(#{headers := Headers} = State) ->
    case maps:get(<<"content-encoding">>, Headers, <<"identity">>) of
        <<"gzip">> -> State#{encoding => gzip};
        <<"identity">> -> State#{encoding => identity};
        _ -> throw({signed, 415, unsupported_content_encoding})
    end.

check_accept(#{accept := Accepted} = State) ->
    lists:member(?ETF, Accepted) orelse throw({signed, 406, <<>>}),
    State.

%%% The body

check_length(#{headers := Headers} = State) ->
    binary_to_integer(maps:get(<<"content-length">>, Headers, <<"0">>)) =< limit(State) orelse throw({signed, 413, <<>>}),
    State.

limit(State) ->
    option(max_encoded_args_size, State, 8388608).

option(Name, #{settings := Settings}, Default) ->
    maps:get(Name, Settings, Default).

read_body(#{read := Read} = State) ->
    case Read() of
        {ok, Body} -> State#{body => Body};
        error -> throw({signed, 413, <<>>})
    end.

check_digest(#{headers := #{<<"digest">> := Digest}, body := Body} = State) ->
    peer_wire:digest(Body) =:= Digest orelse throw({signed, 401, wrong_arguments_digest}),
    State.

unpack(#{encoding := identity} = State) ->
    State;
unpack(#{encoding := gzip, body := Body} = State) ->
    case peer_wire:gunzip(Body, limit(State)) of
        {ok, Plain} -> State#{body := Plain};
        too_big -> throw({signed, 413, <<>>});
        error -> throw({signed, 400, unable_to_uncompress_arguments})
    end.

decode(#{body := Body} = State) ->
    case peer_wire:decode(Body, option(decode_unsafe_terms, State, true)) of
        {ok, Args} -> State#{args => Args};
        error -> throw({signed, 400, unable_to_decode_arguments})
    end.

check_args(#{args := Args, arity := Arity} = State) ->
    is_list(Args) orelse throw({signed, 400, arguments_not_a_list}),
    try length(Args) =:= Arity orelse throw({signed, 400, inconsistent_arguments_arity})
    catch error:badarg -> throw({signed, 400, arguments_not_a_list}) % backwater lets an improper list slip through
    end,
    State.

%%% Responses

result(undefined_target, State) ->
    signed(refusal(404, module_or_function_not_found, State), State);
result(Outcome, #{accept_encoding := Accepted} = State) ->
    Encoded = peer_wire:encode(without_stack(Outcome, option(return_exception_stacktraces, State, true))),
    Gzip = case [Name || Name <- Accepted, Name =:= <<"gzip">> orelse Name =:= <<"identity">>] of
        [<<"gzip">> | _] -> byte_size(Encoded) >= option(compression_threshold, State, 300);
        _ -> false
    end,
    Headers = #{<<"cache-control">> => <<"private, no-cache, no-store, must-revalidate">>, <<"pragma">> => <<"no-cache">>,
                <<"expires">> => <<"0">>, <<"content-type">> => ?ETF},
    case Gzip of
        true -> signed({200, Headers#{<<"content-encoding">> => <<"gzip">>}, peer_wire:gzip(Encoded), keep}, State);
        false -> signed({200, Headers, Encoded, keep}, State)
    end.

without_stack({exception, {Class, Reason, _}}, false) -> {exception, {Class, Reason, []}};
without_stack(Outcome, _) -> Outcome.

refusal(401, Why, #{headers := Headers}) ->
    {401, Plain, Body, close} = plain_refusal(401, Why),
    Names = [Name || Name <- [<<"digest">>, <<"x-request-id">> | ?MUST_BE_SIGNED], is_map_key(Name, Headers)],
    List = lists:join(" ", [<<"(request-target)">> | lists:sort(Names)]),
    Asked = iolist_to_binary(["Signature headers=\"", List, "\",realm=\"backwater\""]),
    {401, Plain#{<<"www-authenticate">> => Asked}, Body, close};
refusal(Status, Why, _Request) ->
    plain_refusal(Status, Why).

plain_refusal(Status, Why) ->
    Body = case Why of
        <<>> -> <<>>;
        _ -> iolist_to_binary(io_lib:format("~0p", [Why]))
    end,
    {Status, #{<<"connection">> => <<"close">>, <<"content-type">> => <<"text/plain">>}, Body, close}.

signed({Status, Headers, Body, Next}, #{headers := #{<<"x-request-id">> := Id}, settings := #{secret := Secret}}) ->
    All = Headers#{<<"x-request-id">> => Id, <<"digest">> => peer_wire:digest(Body),
                   <<"content-length">> => integer_to_binary(byte_size(Body))},
    Params = peer_wire:signature(Secret, {<<"(response-status)">>, integer_to_binary(Status)}, All, sorted),
    {Status, All#{<<"signature">> => Params}, Body, Next}.
