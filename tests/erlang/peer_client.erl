%% A client of "backwater" wire version 1 on top of httpc. It verifies all that the genuine one does, in its order.
%%
%% Options (a map): compression_threshold, max_encoded_result_size, decode_unsafe_terms, rethrow_remote_exceptions,
%% connect_timeout, recv_timeout (milliseconds), cacertfile; and, to send what no good client sends:
%%   arity => any integer or binary      instead of the number of arguments
%%   body => Binary                      instead of the encoded arguments; sent as it is
%%   headers => #{Name => Value | none}  set or left out before signing
%%   unsigned => [{Name, Value}]         added after signing
-module(peer_client).

-export([call/6, request/5, judge/6, quote_name/1]).

-define(ETF, <<"application/x-erlang-etf">>).
-define(MUST_BE_SIGNED, [<<"accept">>, <<"content-type">>, <<"content-encoding">>, <<"content-length">>]).

%% {ok, Value} | {error, What}; `Url` is `http://host:port` without a path, text or binary.
call(Url, Secret, Module, Function, Args, Options) ->
    #{path := Path, headers := Headers, body := Body} = request(Secret, Module, Function, Args, Options),
    Where = unicode:characters_to_list([Url, Path]),
    case exchange(Where, Headers, Body, Options) of
        {ok, Status, Back, BackBody} ->
            Id = proplists:get_value(<<"x-request-id">>, Headers),
            give(judge(Secret, Id, Status, Back, BackBody, Options), Options);
        {error, Reason} ->
            {error, {transport, Reason}}
    end.

give({error, {exception, {Class, Reason, Stack}}}, #{rethrow_remote_exceptions := true}) ->
    erlang:raise(Class, Reason, Stack);
give(Result, _Options) ->
    Result.

%%% The request

request(Secret, Module, Function, Args, Options) ->
    Arity = maps:get(arity, Options, length(Args)),
    Path = path([Module, Function, Arity]),
    {Encoding, Body} = request_body(Args, Options),
    Headers = maps:filter(fun(_, Value) -> Value =/= none end, maps:merge(#{
        <<"accept">> => ?ETF,
        <<"accept-encoding">> => <<"gzip">>,
        <<"content-encoding">> => Encoding,
        <<"content-length">> => integer_to_binary(byte_size(Body)),
        <<"content-type">> => ?ETF,
        <<"digest">> => peer_wire:digest(Body),
        <<"x-request-id">> => base64:encode(crypto:strong_rand_bytes(16))
    }, maps:get(headers, Options, #{}))),
    Params = peer_wire:signature(Secret, {<<"(request-target)">>, <<"post ", Path/binary>>}, Headers, sorted),
    Signed = maps:to_list(Headers#{<<"authorization">> => <<"Signature ", Params/binary>>}),
    #{path => Path, body => Body, headers => Signed ++ maps:get(unsigned, Options, [])}.

request_body(_Args, #{body := Body}) ->
    {none, Body};
request_body(Args, Options) ->
    Encoded = peer_wire:encode(Args),
    case byte_size(Encoded) >= maps:get(compression_threshold, Options, 300) of
        true -> {<<"gzip">>, peer_wire:gzip(Encoded)};
        false -> {none, Encoded}
    end.

path(Names) ->
    iolist_to_binary(["/backwater/1", [["/", quote_name(Name)] || Name <- Names]]).

%% All but RFC 3986's unreserved characters is percent-encoded.
quote_name(Name) when is_atom(Name) -> quote_name(atom_to_binary(Name));
quote_name(Name) when is_integer(Name) -> integer_to_binary(Name);
quote_name(Name) -> << <<(quote_byte(Byte))/binary>> || <<Byte>> <= Name >>.

quote_byte(Byte) when Byte >= $a, Byte =< $z; Byte >= $A, Byte =< $Z; Byte >= $0, Byte =< $9 -> <<Byte>>;
quote_byte(Byte) when Byte =:= $-; Byte =:= $.; Byte =:= $_; Byte =:= $~ -> <<Byte>>;
quote_byte(Byte) -> iolist_to_binary(io_lib:format("%~2.16.0B", [Byte])).

%% httpc writes content-type and content-length itself, so those two are taken out of the others.
exchange(Url, Headers, Body, Options) ->
    Type = binary_to_list(proplists:get_value(<<"content-type">>, Headers, <<>>)),
    Others = [{binary_to_list(Name), binary_to_list(Value)} || {Name, Value} <- Headers,
              Name =/= <<"content-type">>, Name =/= <<"content-length">>],
    Tls = case Options of
        #{cacertfile := File} ->
            [{ssl, [{verify, verify_peer}, {cacertfile, File}, {verify_fun, {fun verify_certificate/3, none}}]}];
        _ -> []
    end,
    Http = [{autoredirect, false}, {timeout, maps:get(recv_timeout, Options, 5000)},
            {connect_timeout, maps:get(connect_timeout, Options, 8000)} | Tls],
    case httpc:request(post, {Url, Others, Type, Body}, Http, [{body_format, binary}]) of
        {ok, {{_Version, Status, _Reason}, Back, BackBody}} ->
            {ok, Status, [{list_to_binary(Name), list_to_binary(Value)} || {Name, Value} <- Back], BackBody};
        {error, Reason} ->
            {error, Reason}
    end.

%% OTP does not know the critical subjectAltName of a certificate without a subject, such as trustme makes.
%% The name itself was compared by then.
verify_certificate(_Certificate, {bad_cert, Why}, _State) -> {fail, Why};
verify_certificate(_Certificate, {extension, {'Extension', {2, 5, 29, 17}, _, _}}, State) -> {valid, State};
verify_certificate(_Certificate, {extension, _}, State) -> {unknown, State};
verify_certificate(_Certificate, _Valid, State) -> {valid, State}.

%%% The response: first whether it is genuine, then what it says

judge(Secret, Id, Status, HeaderList, Body, Options) ->
    Headers = peer_wire:joined(HeaderList),
    Shown = {status_name(Status), lists:sort(HeaderList), Body},
    case authenticate(Secret, Id, Status, Headers, Body) of
        ok when Status =:= 200 -> open(Headers, Body, Options, Shown);
        ok -> {error, {remote, Shown}};
        {error, Failure} -> {error, {{response_authentication, Failure}, Shown}}
    end.

authenticate(Secret, Id, Status, Headers, Body) ->
    case Headers of
        #{<<"x-request-id">> := Id, <<"signature">> := Text} ->
            authenticate_params(peer_wire:parse_params(Text), Secret, Status, Headers, Body);
        #{<<"x-request-id">> := Id} -> {error, missing_signature_header};
        #{<<"x-request-id">> := _} -> {error, mismatched_request_id};
        _ -> {error, missing_request_id}
    end.

authenticate_params(error, _Secret, _Status, _Headers, _Body) ->
    {error, invalid_header_params};
authenticate_params({ok, Params}, Secret, Status, Headers, Body) ->
    Pseudo = {<<"(response-status)">>, integer_to_binary(Status)},
    case peer_wire:check(Secret, Params, Pseudo, Headers, ?MUST_BE_SIGNED) of
        {ok, _Names} ->
            case peer_wire:digest(Body) =:= maps:get(<<"digest">>, Headers) of
                true -> ok;
                false -> {error, wrong_body_digest}
            end;
        crash -> {error, invalid_header_params};
        Error -> Error
    end.

open(Headers, Body, Options, Shown) ->
    Type = hd(re:split(maps:get(<<"content-type">>, Headers, <<>>), "[; \r\n]")),
    Limit = maps:get(max_encoded_result_size, Options, 8388608),
    case {maps:get(<<"content-encoding">>, Headers, <<"identity">>), Type} of
        {<<"gzip">>, ?ETF} -> open_plain(peer_wire:gunzip(Body, Limit), Options, Shown);
        {<<"identity">>, ?ETF} -> open_plain({ok, Body}, Options, Shown);
        {Encoding, _} when Encoding =/= <<"gzip">>, Encoding =/= <<"identity">> ->
            {error, {invalid_content_encoding, Shown}};
        _ -> {error, {invalid_content_type, Shown}}
    end.

open_plain({ok, Plain}, Options, Shown) ->
    case peer_wire:decode(Plain, maps:get(decode_unsafe_terms, Options, true)) of
        {ok, {return, Value}} -> {ok, Value};
        {ok, {exception, {Class, _, Stack} = Exception}}
            when is_list(Stack), Class =:= error orelse Class =:= exit orelse Class =:= throw ->
            {error, {exception, Exception}};
        _ -> {error, {invalid_body, Shown}}
    end;
open_plain(_TooBigOrBroken, _Options, Shown) ->
    {error, {invalid_body, Shown}}.

status_name(Status) ->
    Names = #{200 => ok, 400 => bad_request, 401 => unauthorized, 403 => forbidden, 404 => not_found,
              405 => method_not_allowed, 406 => not_acceptable, 413 => payload_too_large,
              415 => unsupported_media_type, 500 => internal_error},
    maps:get(Status, Names, {http, Status}).
