%% The part of "backwater" wire version 1 that both ends share: terms, gzip, digests and signatures.
%%
%% Nothing but OTP is used, and nothing of the Python package: what the tests compare must not come from one source.
-module(peer_wire).

-export([encode/1, decode/2, gzip/1, gunzip/2, digest/1]).
-export([trim/1, lower/1, joined/1]).
-export([signature/4, parse_params/1, check/5]).

-define(ETF_VERSION, 131).
-define(ETF_COMPRESSED, 80).

%% Minor version 1 is what backwater 3 asks for: on newer OTPs, too, a latin1 atom is then an ATOM_EXT.
encode(Term) ->
    term_to_binary(Term, [{minor_version, 1}]).

%% A compressed term is refused: it would be a way around the limit on sizes.
decode(<<?ETF_VERSION, ?ETF_COMPRESSED, _/binary>>, _Unsafe) ->
    error;
decode(Bytes, Unsafe) ->
    Options = case Unsafe of true -> []; false -> [safe] end,
    try {ok, binary_to_term(Bytes, Options)}
    catch error:badarg -> error
    end.

gzip(Bytes) ->
    zlib:gzip(Bytes).

%% Never holds much more than the limit; what follows the end of the first gzip stream is not looked at.
gunzip(Bytes, Limit) ->
    Z = zlib:open(),
    try
        ok = zlib:inflateInit(Z, 16 + 15),
        Result = inflate(Z, Bytes, Limit, []),
        %% raises data_error where the stream has not ended
        case Result of {ok, _} -> zlib:inflateEnd(Z); too_big -> ok end,
        Result
    catch error:_ -> error
    after zlib:close(Z)
    end.

inflate(Z, Input, Left, Acc) ->
    {More, Output} = zlib:safeInflate(Z, Input),
    case {Left - iolist_size(Output), More} of
        {Rest, _} when Rest < 0 -> too_big;
        {Rest, continue} -> inflate(Z, [], Rest, [Acc, Output]);
        {_, finished} -> {ok, iolist_to_binary([Acc, Output])}
    end.

digest(Body) ->
    <<"SHA-256=", (base64:encode(crypto:hash(sha256, Body)))/binary>>.

%%% Headers

lower(Name) ->
    string:lowercase(Name).

trim(<<Blank, Rest/binary>>) when Blank =:= $\s; Blank >= $\t, Blank =< $\r ->
    trim(Rest);
trim(Value) ->
    trim_end(Value).

trim_end(<<>>) ->
    <<>>;
trim_end(Value) ->
    case binary:last(Value) of
        Blank when Blank =:= $\s; Blank >= $\t, Blank =< $\r -> trim_end(binary:part(Value, 0, byte_size(Value) - 1));
        _ -> Value
    end.

%% [{Name, Value}] as on the wire -> #{LowerName => Value}; a repeated one is joined.
joined(Headers) ->
    lists:foldl(fun add_header/2, #{}, [{lower(Name), trim(Value)} || {Name, Value} <- Headers]).

add_header({Name, Value}, Map) ->
    maps:update_with(Name, fun(Before) -> <<Before/binary, ", ", Value/binary>> end, Value, Map).

%%% Signatures. `Pseudo` is {<<"(request-target)">>, Value} or {<<"(response-status)">>, Value}.

%% The parameters that sign all of the headers given.
signature(Secret, Pseudo, Headers, Order) ->
    Names = case Order of sorted -> lists:sort([element(1, Pseudo) | maps:keys(Headers)]); _ -> Order end,
    {ok, Text} = signing_string(Names, Pseudo, Headers),
    <<"algorithm=\"hmac-sha256\",headers=\"", (blank_between(Names))/binary, "\",keyId=\"default\",signature=\"",
      (base64:encode(mac(Secret, Text)))/binary, "\"">>.

blank_between(Names) ->
    iolist_to_binary(lists:join(" ", Names)).

mac(Secret, Text) ->
    crypto:mac(hmac, sha256, Secret, Text).

signing_string(Names, Pseudo, Headers) ->
    signing_lines(Names, Pseudo, Headers, []).

signing_lines([], _Pseudo, _Headers, Lines) ->
    {ok, iolist_to_binary(lists:join("\n", lists:reverse(Lines)))};
signing_lines([Name | Names], {PseudoName, PseudoValue} = Pseudo, Headers, Lines) ->
    case maps:find(Name, Headers#{PseudoName => PseudoValue}) of
        {ok, Value} -> signing_lines(Names, Pseudo, Headers, [[Name, ": ", trim(Value)] | Lines]);
        error -> {error, {missing_header, Name}}
    end.

%% Splits at every comma: no value can hold one. Blanks are not skipped.
parse_params(Text) ->
    Pieces = [Piece || Piece <- binary:split(Text, <<",">>, [global]), Piece =/= <<>>],
    try {ok, maps:from_list([parse_param(binary:split(Piece, <<"=">>)) || Piece <- Pieces])}
    catch error:function_clause -> error
    end.

parse_param([Key, <<$", Quoted/binary>>]) when Quoted =/= <<>> ->
    $" = binary_last(Quoted),
    {Key, binary:part(Quoted, 0, byte_size(Quoted) - 1)}.

binary_last(Bytes) ->
    case binary:last(Bytes) of $" -> $"; _ -> error(function_clause) end.

%% Each guard in the order in which backwater asks: {ok, SignedNames} or {error, Why}.
%% A signature that is absent or not base64 is `crash`: backwater's server dies of it.
check(Secret, Params, Pseudo, Headers, Mandatory) ->
    case {Params, maps:get(<<"signature">>, Params, none)} of
        {#{<<"keyId">> := <<"default">>, <<"algorithm">> := <<"hmac-sha256">>, <<"headers">> := List}, Signature} ->
            Names = [Name || Name <- binary:split(List, <<" ">>, [global]), Name =/= <<>>],
            check_names(Secret, Names, Signature, Pseudo, Headers, Mandatory);
        {#{<<"keyId">> := <<"default">>, <<"algorithm">> := <<"hmac-sha256">>}, _} ->
            {error, missing_signed_header_list};
        {#{<<"keyId">> := <<"default">>}, _} ->
            {error, unknown_algorithm};
        _ ->
            {error, unknown_key}
    end.

check_names(Secret, Names, Signature, {PseudoName, _} = Pseudo, Headers, IfPresent) ->
    Unlisted = [Name || Name <- [PseudoName, <<"digest">>, <<"x-request-id">>], not lists:member(Name, Names)],
    Unsigned = [Name || Name <- IfPresent, is_map_key(Name, Headers), not lists:member(Name, Names)],
    case {Unlisted, Unsigned, signing_string(Names, Pseudo, Headers)} of
        {[Name | _], _, _} -> {error, {missing_mandatory_header, Name}};
        {[], [Name | _], _} -> {error, {missing_mandatorily_signed_header, Name}};
        {[], [], {error, Why}} -> {error, Why};
        {[], [], {ok, Text}} -> check_mac(mac(Secret, Text), Signature, Names)
    end.

check_mac(_Mac, none, _Names) ->
    crash;
check_mac(Mac, Signature, Names) ->
    try base64:decode(Signature) of
        Mac -> {ok, Names};
        _ -> {error, invalid_signature}
    catch error:_ -> crash
    end.
